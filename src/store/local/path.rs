//! Keys as paths: which keys a file system can hold.

use crate::key::{Key, RESERVED, SNAPSHOTS};

/// Longest path, without the closing NUL: `PATH_MAX` of Linux.
const PATH_BYTES_MAX: usize = 4095;

/// Longest name of one file: `NAME_MAX` of Linux.
const NAME_BYTES_MAX: usize = 255;

/// Checks that a key can be the path of a file or, ending in `/`, of a directory; says why where it cannot.
pub(crate) fn check(key: &Key) -> Result<(), String> {
    let path = name_of(key);
    if path.is_empty() {
        return Err("the root itself is no object".into());
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(format!("a path here has at most {PATH_BYTES_MAX} bytes"));
    }
    if [RESERVED, SNAPSHOTS].iter().any(|folder| folder.as_bytes().strip_suffix(b"/") == Some(path))
        && !key.is_directory()
        || key.starts_with(SNAPSHOTS.as_bytes())
    {
        return Err("this name is kept for snapshots and for snapferry itself".into());
    }
    if path.contains(&0) {
        return Err("a path here cannot hold a NUL byte".into());
    }
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" => return Err("a path here has no empty component".into()),
            b"." | b".." => return Err("a path here has no component `.` or `..`".into()),
            name if name.len() > NAME_BYTES_MAX => {
                return Err(format!("a name here has at most {NAME_BYTES_MAX} bytes"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The key without the `/` that closes a directory's.
pub(crate) fn name_of(key: &Key) -> &[u8] {
    key.as_bytes().strip_suffix(b"/").unwrap_or(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_can_be() {
        for good in ["a", "a/", "a/b", "a#1", " a ", "a\nb", "...", ".a", "a:b", ".snapferry/x", "%2E", "é"] {
            assert_eq!(check(&good.into()), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a//",
            "a//b",
            ".",
            "..",
            "./a",
            "a/../b",
            "a/..",
            "a\0b",
            ".snapshot",
            ".snapshot/x",
            ".snapferry",
        ] {
            assert!(check(&bad.into()).is_err(), "{bad:?}");
        }
        assert!(check(&"n".repeat(255).into()).is_ok());
        assert!(check(&"n".repeat(256).into()).is_err());
        assert!(check(&"dir/".repeat(1024).into()).is_ok());
        assert!(check(&"dir/".repeat(1025).into()).is_err());
    }
}
