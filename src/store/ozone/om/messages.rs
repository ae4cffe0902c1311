//! The messages of the Ozone Manager's protocol, as far as they are used: package `hadoop.ozone` of Apache Ozone 2.2,
//! proto2. A required field travels even when it is zero or empty; fields that are not named here are skipped.

use bytes::Bytes;
use prost::Message;

/// What a request asks for: `cmdType`.
pub(super) mod command {
    pub(crate) const CREATE_BUCKET: i32 = 21;
    pub(crate) const INFO_BUCKET: i32 = 22;
    pub(crate) const LIST_BUCKETS: i32 = 25;
    pub(crate) const RENAME_KEY: i32 = 33;
    pub(crate) const DELETE_KEY: i32 = 34;
    pub(crate) const LIST_KEYS: i32 = 35;
    pub(crate) const DELETE_KEYS: i32 = 38;
    pub(crate) const RENAME_KEYS: i32 = 39;
    pub(crate) const GET_FILE_STATUS: i32 = 70;
    pub(crate) const CREATE_DIRECTORY: i32 = 71;
    pub(crate) const LIST_STATUS: i32 = 74;
    pub(crate) const GET_KEY_INFO: i32 = 111;
    pub(crate) const CREATE_SNAPSHOT: i32 = 112;
    pub(crate) const LIST_SNAPSHOT: i32 = 113;
    pub(crate) const SNAPSHOT_DIFF: i32 = 114;
    pub(crate) const DELETE_SNAPSHOT: i32 = 115;
    pub(crate) const CANCEL_SNAPSHOT_DIFF: i32 = 123;
    pub(crate) const GET_SNAPSHOT_INFO: i32 = 130;
    pub(crate) const SUBMIT_SNAPSHOT_DIFF: i32 = 143;

    /// The name in the protocol, for errors.
    pub(crate) fn name(command: i32) -> &'static str {
        match command {
            CREATE_BUCKET => "CreateBucket",
            INFO_BUCKET => "InfoBucket",
            LIST_BUCKETS => "ListBuckets",
            RENAME_KEY => "RenameKey",
            DELETE_KEY => "DeleteKey",
            LIST_KEYS => "ListKeys",
            DELETE_KEYS => "DeleteKeys",
            RENAME_KEYS => "RenameKeys",
            GET_FILE_STATUS => "GetFileStatus",
            CREATE_DIRECTORY => "CreateDirectory",
            LIST_STATUS => "ListStatus",
            GET_KEY_INFO => "GetKeyInfo",
            CREATE_SNAPSHOT => "CreateSnapshot",
            LIST_SNAPSHOT => "ListSnapshot",
            SNAPSHOT_DIFF => "SnapshotDiff",
            DELETE_SNAPSHOT => "DeleteSnapshot",
            CANCEL_SNAPSHOT_DIFF => "CancelSnapshotDiff",
            GET_SNAPSHOT_INFO => "GetSnapshotInfo",
            SUBMIT_SNAPSHOT_DIFF => "SubmitSnapshotDiff",
            _ => "a request",
        }
    }
}

/// Changes nothing when it is done twice, or at all.
pub(super) fn only_reads(command: i32) -> bool {
    matches!(
        command,
        command::INFO_BUCKET
            | command::LIST_BUCKETS
            | command::LIST_KEYS
            | command::GET_FILE_STATUS
            | command::LIST_STATUS
            | command::GET_KEY_INFO
            | command::LIST_SNAPSHOT
            | command::SNAPSHOT_DIFF
            | command::GET_SNAPSHOT_INFO
    )
}

/// The one request, with one of its many parts set.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OmRequest {
    #[prost(int32, required, tag = "1")]
    pub(super) cmd_type: i32,
    #[prost(string, required, tag = "3")]
    pub(super) client_id: String,
    #[prost(message, optional, tag = "4")]
    pub(super) user: Option<UserInfo>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) version: Option<u32>,
    #[prost(message, optional, tag = "21")]
    pub(super) create_bucket: Option<CreateBucketRequest>,
    #[prost(message, optional, tag = "22")]
    pub(super) info_bucket: Option<BucketName>,
    #[prost(message, optional, tag = "25")]
    pub(super) list_buckets: Option<ListRequest>,
    #[prost(message, optional, tag = "33")]
    pub(super) rename_key: Option<RenameKeyRequest>,
    #[prost(message, optional, tag = "34")]
    pub(super) delete_key: Option<KeyRequest>,
    #[prost(message, optional, tag = "35")]
    pub(super) list_keys: Option<ListKeysRequest>,
    #[prost(message, optional, tag = "38")]
    pub(super) delete_keys: Option<DeleteKeysRequest>,
    #[prost(message, optional, tag = "39")]
    pub(super) rename_keys: Option<RenameKeysRequest>,
    #[prost(message, optional, tag = "70")]
    pub(super) get_file_status: Option<KeyRequest>,
    #[prost(message, optional, tag = "71")]
    pub(super) create_directory: Option<KeyRequest>,
    #[prost(message, optional, tag = "74")]
    pub(super) list_status: Option<ListStatusRequest>,
    #[prost(message, optional, tag = "95")]
    pub(super) authentication: Option<S3Authentication>,
    #[prost(message, optional, tag = "111")]
    pub(super) get_key_info: Option<KeyRequest>,
    #[prost(message, optional, tag = "112")]
    pub(super) create_snapshot: Option<SnapshotName>,
    #[prost(message, optional, tag = "113")]
    pub(super) list_snapshot: Option<ListSnapshotRequest>,
    #[prost(message, optional, tag = "114")]
    pub(super) snapshot_diff: Option<SnapshotDiffRequest>,
    #[prost(message, optional, tag = "115")]
    pub(super) delete_snapshot: Option<SnapshotName>,
    #[prost(message, optional, tag = "123")]
    pub(super) cancel_snapshot_diff: Option<SnapshotDiffRequest>,
    #[prost(message, optional, tag = "128")]
    pub(super) get_snapshot_info: Option<SnapshotName>,
    #[prost(message, optional, tag = "144")]
    pub(super) submit_snapshot_diff: Option<SnapshotDiffRequest>,
}

impl OmRequest {
    /// A request for a command, with nothing in it yet.
    pub(super) fn of(cmd_type: i32) -> Self {
        Self { cmd_type, ..Self::default() }
    }
}

/// The one answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OmResponse {
    #[prost(int32, required, tag = "1")]
    pub(super) cmd_type: i32,
    #[prost(string, optional, tag = "4")]
    pub(super) message: Option<String>,
    #[prost(int32, required, tag = "5")]
    pub(super) status: i32,
    #[prost(string, optional, tag = "6")]
    pub(super) leader: Option<String>,
    #[prost(message, optional, tag = "22")]
    pub(super) info_bucket: Option<InfoBucketResponse>,
    #[prost(message, optional, tag = "25")]
    pub(super) list_buckets: Option<ListBucketsResponse>,
    #[prost(message, optional, tag = "35")]
    pub(super) list_keys: Option<ListKeysResponse>,
    #[prost(message, optional, tag = "38")]
    pub(super) delete_keys: Option<DeleteKeysResponse>,
    #[prost(message, optional, tag = "39")]
    pub(super) rename_keys: Option<RenameKeysResponse>,
    #[prost(message, optional, tag = "70")]
    pub(super) get_file_status: Option<GetFileStatusResponse>,
    #[prost(message, optional, tag = "74")]
    pub(super) list_status: Option<ListStatusResponse>,
    #[prost(message, optional, tag = "111")]
    pub(super) get_key_info: Option<GetKeyInfoResponse>,
    #[prost(message, optional, tag = "112")]
    pub(super) create_snapshot: Option<SnapshotResponse>,
    #[prost(message, optional, tag = "113")]
    pub(super) list_snapshot: Option<ListSnapshotResponse>,
    #[prost(message, optional, tag = "114")]
    pub(super) snapshot_diff: Option<SnapshotDiffResponse>,
    #[prost(message, optional, tag = "123")]
    pub(super) cancel_snapshot_diff: Option<Said>,
    #[prost(message, optional, tag = "130")]
    pub(super) get_snapshot_info: Option<SnapshotResponse>,
    #[prost(message, optional, tag = "143")]
    pub(super) submit_snapshot_diff: Option<Said>,
}

/// A text that is all there is in an answer.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Said {
    #[prost(string, optional, tag = "1")]
    pub(super) text: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UserInfo {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) remote_address: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) host_name: Option<String>,
}

/// As the S3 Gateway passes on who signed a request.
#[derive(Clone, PartialEq, Message)]
pub(super) struct S3Authentication {
    #[prost(string, optional, tag = "1")]
    pub(super) string_to_sign: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) signature: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) access_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, required, tag = "1")]
    pub(super) key: String,
    #[prost(string, optional, tag = "2")]
    pub(super) value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketName {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, required, tag = "2")]
    pub(super) bucket: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BucketInfo {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, required, tag = "2")]
    pub(super) bucket: String,
    #[prost(bool, required, tag = "4")]
    pub(super) versions: bool,
    /// 1 is disk.
    #[prost(int32, required, tag = "5")]
    pub(super) storage_type: i32,
    #[prost(message, optional, tag = "8")]
    pub(super) encryption: Option<Opaque>,
    #[prost(string, optional, tag = "12")]
    pub(super) source_volume: Option<String>,
    #[prost(string, optional, tag = "13")]
    pub(super) source_bucket: Option<String>,
    #[prost(uint64, optional, tag = "14")]
    pub(super) used_bytes: Option<u64>,
    #[prost(int64, optional, tag = "15")]
    pub(super) quota_bytes: Option<i64>,
    #[prost(int64, optional, tag = "16")]
    pub(super) quota_names: Option<i64>,
    #[prost(uint64, optional, tag = "17")]
    pub(super) used_names: Option<u64>,
    /// 1 legacy, 2 file system optimised, 3 object store.
    #[prost(int32, optional, tag = "18")]
    pub(super) layout: Option<i32>,
}

/// A message of which only its being there matters.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Opaque {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CreateBucketRequest {
    #[prost(message, required, tag = "1")]
    pub(super) bucket: BucketInfo,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct InfoBucketResponse {
    #[prost(message, optional, tag = "2")]
    pub(super) bucket: Option<BucketInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListRequest {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, optional, tag = "2")]
    pub(super) after: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) prefix: Option<String>,
    #[prost(int32, optional, tag = "4")]
    pub(super) count: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListBucketsResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) buckets: Vec<BucketInfo>,
}

/// A key and what about it is asked or changed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyArgs {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, required, tag = "2")]
    pub(super) bucket: String,
    #[prost(string, required, tag = "3")]
    pub(super) key: String,
    /// The datanode that is nearest comes first.
    #[prost(bool, optional, tag = "14")]
    pub(super) sort_datanodes: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub(super) latest_version: Option<bool>,
    #[prost(bool, optional, tag = "17")]
    pub(super) recursive: Option<bool>,
    /// Without the blocks.
    #[prost(bool, optional, tag = "18")]
    pub(super) head: Option<bool>,
    #[prost(string, optional, tag = "21")]
    pub(super) owner: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyRequest {
    #[prost(message, required, tag = "1")]
    pub(super) key: KeyArgs,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RenameKeyRequest {
    #[prost(message, required, tag = "1")]
    pub(super) from: KeyArgs,
    #[prost(string, required, tag = "2")]
    pub(super) to: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RenamePair {
    #[prost(string, required, tag = "1")]
    pub(super) from: String,
    #[prost(string, required, tag = "2")]
    pub(super) to: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RenameKeysArgs {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, required, tag = "2")]
    pub(super) bucket: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) pairs: Vec<RenamePair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RenameKeysRequest {
    #[prost(message, required, tag = "1")]
    pub(super) args: RenameKeysArgs,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RenameKeysResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) left: Vec<RenamePair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteKeysArgs {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, required, tag = "2")]
    pub(super) bucket: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) keys: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteKeysRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) args: Option<DeleteKeysArgs>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteKeyError {
    #[prost(string, optional, tag = "1")]
    pub(super) key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) code: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) message: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteKeysResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) left: Option<DeleteKeysArgs>,
    #[prost(message, repeated, tag = "3")]
    pub(super) errors: Vec<DeleteKeyError>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListKeysRequest {
    #[prost(string, required, tag = "1")]
    pub(super) volume: String,
    #[prost(string, required, tag = "2")]
    pub(super) bucket: String,
    #[prost(string, optional, tag = "3")]
    pub(super) after: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) prefix: Option<String>,
    #[prost(int32, optional, tag = "5")]
    pub(super) count: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListKeysResponse {
    #[prost(message, repeated, tag = "2")]
    pub(super) keys: Vec<KeyInfo>,
    #[prost(bool, optional, tag = "3")]
    pub(super) truncated: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListStatusRequest {
    #[prost(message, required, tag = "1")]
    pub(super) directory: KeyArgs,
    #[prost(bool, required, tag = "2")]
    pub(super) recursive: bool,
    #[prost(string, required, tag = "3")]
    pub(super) start: String,
    #[prost(uint64, required, tag = "4")]
    pub(super) count: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FileStatus {
    #[prost(message, optional, tag = "2")]
    pub(super) key: Option<KeyInfo>,
    #[prost(bool, optional, tag = "4")]
    pub(super) directory: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListStatusResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) statuses: Vec<FileStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetFileStatusResponse {
    #[prost(message, required, tag = "1")]
    pub(super) status: FileStatus,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GetKeyInfoResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) key: Option<KeyInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyInfo {
    #[prost(string, required, tag = "3")]
    pub(super) key: String,
    #[prost(uint64, required, tag = "4")]
    pub(super) size: u64,
    /// Replication: 1 Ratis, 2 stand-alone, 4 erasure coded.
    #[prost(int32, required, tag = "5")]
    pub(super) replication: i32,
    #[prost(message, repeated, tag = "7")]
    pub(super) versions: Vec<KeyLocationList>,
    #[prost(uint64, required, tag = "9")]
    pub(super) mtime_ms: u64,
    #[prost(message, repeated, tag = "11")]
    pub(super) metadata: Vec<KeyValue>,
    #[prost(message, optional, tag = "12")]
    pub(super) encryption: Option<Opaque>,
    #[prost(uint64, optional, tag = "14")]
    pub(super) object_id: Option<u64>,
    #[prost(uint64, optional, tag = "15")]
    pub(super) update_id: Option<u64>,
    #[prost(bool, optional, tag = "19")]
    pub(super) file: Option<bool>,
    #[prost(message, repeated, tag = "21")]
    pub(super) tags: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyLocationList {
    #[prost(uint64, optional, tag = "1")]
    pub(super) version: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) blocks: Vec<KeyLocation>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyLocation {
    #[prost(message, required, tag = "1")]
    pub(super) id: BlockId,
    #[prost(uint64, required, tag = "3")]
    pub(super) offset: u64,
    #[prost(uint64, required, tag = "4")]
    pub(super) length: u64,
    #[prost(message, optional, tag = "6")]
    pub(super) token: Option<Token>,
    #[prost(message, optional, tag = "7")]
    pub(super) pipeline: Option<Pipeline>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BlockId {
    #[prost(message, required, tag = "1")]
    pub(super) id: ContainerBlockId,
    #[prost(uint64, optional, tag = "2")]
    pub(super) sequence: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerBlockId {
    #[prost(int64, required, tag = "1")]
    pub(super) container: i64,
    #[prost(int64, required, tag = "2")]
    pub(super) local: i64,
}

/// Hadoop's `TokenProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Token {
    #[prost(bytes = "bytes", required, tag = "1")]
    pub(super) identifier: Bytes,
    #[prost(bytes = "bytes", required, tag = "2")]
    pub(super) password: Bytes,
    #[prost(string, required, tag = "3")]
    pub(super) kind: String,
    #[prost(string, required, tag = "4")]
    pub(super) service: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pipeline {
    #[prost(message, repeated, tag = "1")]
    pub(super) members: Vec<Datanode>,
    /// As [`KeyInfo::replication`].
    #[prost(int32, optional, tag = "3")]
    pub(super) replication: Option<i32>,
    /// Indexes of `members`, the nearest first.
    #[prost(uint32, repeated, packed = "false", tag = "7")]
    pub(super) order: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Datanode {
    #[prost(string, optional, tag = "1")]
    pub(super) uuid: Option<String>,
    #[prost(string, required, tag = "2")]
    pub(super) ip: String,
    #[prost(string, required, tag = "3")]
    pub(super) host: String,
    #[prost(message, repeated, tag = "4")]
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Port {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(uint32, required, tag = "2")]
    pub(super) number: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Uuid {
    #[prost(int64, required, tag = "1")]
    pub(super) high: i64,
    #[prost(int64, required, tag = "2")]
    pub(super) low: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotName {
    #[prost(string, optional, tag = "1")]
    pub(super) volume: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) bucket: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) id: Option<Uuid>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
    /// 1 active, 2 deleted.
    #[prost(int32, optional, tag = "5")]
    pub(super) status: Option<i32>,
    #[prost(uint64, optional, tag = "6")]
    pub(super) created_ms: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) snapshot: Option<SnapshotInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListSnapshotRequest {
    #[prost(string, optional, tag = "1")]
    pub(super) volume: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) bucket: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) prefix: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) after: Option<String>,
    #[prost(uint32, optional, tag = "5")]
    pub(super) count: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListSnapshotResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) snapshots: Vec<SnapshotInfo>,
    #[prost(string, optional, tag = "2")]
    pub(super) last: Option<String>,
}

/// Submits, reports and cancels: the last two have fewer of these fields.
#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotDiffRequest {
    #[prost(string, optional, tag = "1")]
    pub(super) volume: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) bucket: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) from: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) to: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) token: Option<String>,
    #[prost(uint32, optional, tag = "6")]
    pub(super) page_size: Option<u32>,
    #[prost(bool, optional, tag = "7")]
    pub(super) force_full: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub(super) disable_native: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SnapshotDiffResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) report: Option<DiffReport>,
    #[prost(int32, optional, tag = "2")]
    pub(super) status: Option<i32>,
    #[prost(string, optional, tag = "4")]
    pub(super) reason: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DiffReport {
    #[prost(message, repeated, tag = "5")]
    pub(super) entries: Vec<DiffEntry>,
    #[prost(string, optional, tag = "6")]
    pub(super) token: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DiffEntry {
    /// 1 create, 2 modify, 3 delete, 4 rename.
    #[prost(int32, optional, tag = "1")]
    pub(super) kind: Option<i32>,
    #[prost(string, optional, tag = "2")]
    pub(super) source: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) target: Option<String>,
}
