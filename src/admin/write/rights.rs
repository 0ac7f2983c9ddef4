//! Who may do what with a file that is replaced: owner, mode, ACL and every other attribute.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};

use rustix::buffer::spare_capacity;
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Privacy {
    /// A private key goes in among its settings: a new file is 0600; an old one keeps what its
    /// group may read, and loses what its group may write and what others may do with it.
    Private,
    /// It is a private key: 0600, whatever an old one was.
    Owner,
    /// It holds public things: a new file is 0644; an old one keeps its mode.
    Public,
}

/// Gives `new`, which is to replace `old`, its owner, its extended attributes and, as far as
/// `privacy` lets it, its mode.
///
/// # Errors
///
/// When one of them cannot be kept; the error names it.
pub fn carry_over(old: &File, new: &File, privacy: Privacy) -> io::Result<()> {
    let (was, own) = (old.metadata()?, new.metadata()?);
    if (own.uid(), own.gid()) != (was.uid(), was.gid()) {
        fchown(new, Some(was.uid()), Some(was.gid()))
            .map_err(|error| named("its owner", &error))?;
    }
    let names = attributes(old)?;
    let acl = ACL.to_bytes_with_nul().to_vec();
    if !names.contains(&acl) && attributes(new)?.contains(&acl) {
        // What the folder gives to new files would let others in.
        fremovexattr(new, ACL)?;
    }
    for name in names {
        let Ok(name) = CStr::from_bytes_with_nul(&name) else {
            continue;
        };
        if !OF_THE_CONTENT.contains(&name.to_bytes()) {
            keep(old, new, name).map_err(|error| {
                let shown = name.to_string_lossy();
                named(
                    &format!("its attribute `{}`", shown.escape_debug()),
                    &error.into(),
                )
            })?;
        }
    }
    // Last: with an ACL, the bits of the group are the most that a user it names may do.
    new.set_permissions(Permissions::from_mode(mode_after(was.mode(), privacy)))
}

/// Returns the permission bits of a file after it was written.
pub fn mode_after(mode: u32, privacy: Privacy) -> u32 {
    match privacy {
        Privacy::Private => mode & 0o740,
        Privacy::Owner => 0o600,
        Privacy::Public => mode & 0o777,
    }
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} cannot be kept: {error}"))
}

fn keep(old: &File, new: &File, name: &CStr) -> Result<(), Errno> {
    let wanted = value(old, name)?;
    if value(new, name).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    fsetxattr(new, name, &wanted, XattrFlags::empty())
}

fn value(file: &File, name: &CStr) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(MOST_BYTES);
    fgetxattr(file, name, spare_capacity(&mut value))?;
    Ok(value)
}

/// Lists the attributes of `file`, each name with its final zero byte.
fn attributes(file: &File) -> io::Result<Vec<Vec<u8>>> {
    let mut list = Vec::with_capacity(MOST_BYTES);
    match flistxattr(file, spare_capacity(&mut list)) {
        Ok(_) => Ok(list
            .split_inclusive(|byte| *byte == 0)
            .map(<[u8]>::to_vec)
            .collect()),
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

const ACL: &CStr = c"system.posix_acl_access";

/// Attributes that the system makes of the content.
const OF_THE_CONTENT: [&[u8]; 2] = [b"security.evm", b"security.ima"];

/// The most bytes that Linux stores in the value of an attribute, and in the list of their names.
const MOST_BYTES: usize = 64 * 1024;
