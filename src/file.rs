//! Small files that are there whole or not at all.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// A temporary file beside `path`, which everybody may read whom the umask lets.
///
/// # Errors
/// When it cannot be made there.
pub(crate) fn beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new().prefix(".snapferry-").permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

/// Puts a file with this content in the place of what is there; `mode` is who may use it, whatever the umask.
///
/// # Errors
/// When it cannot be written; then what was there stays.
pub(crate) fn replace(path: &Path, content: &[u8], mode: Option<u32>) -> std::io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(content)?;
    if let Some(mode) = mode {
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
    }
    file.persist(path).map(drop).map_err(|error| error.error)
}
