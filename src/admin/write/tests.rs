use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != LOCK)
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_existing_file_is_left_alone_unless_forced() {
    let folder = folder();
    let path = folder.path().join("key.jwk");
    write(&path, b"old", Privacy::Private, false).unwrap();

    let refused = write(&path, b"new", Privacy::Private, false);

    assert!(matches!(refused.unwrap_err().kind(), Kind::Taken));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write(&path, b"new", Privacy::Private, true).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(folder.path()), ["key.jwk"]);
}

#[test]
fn a_new_private_file_is_readable_by_its_owner_alone() {
    let folder = folder();
    let private = folder.path().join("private");
    let public = folder.path().join("public");

    write(&private, b"d", Privacy::Private, false).unwrap();
    write(&public, b"x", Privacy::Public, false).unwrap();

    assert_eq!(mode(&private), 0o600);
    assert_eq!(mode(&public), 0o644);
}

#[test]
fn a_replaced_file_keeps_its_mode_but_a_private_key_hides_from_others() {
    let folder = folder();
    let path = folder.path().join("application.properties");
    fs::write(&path, b"a=1").unwrap();
    chmod(&path, 0o664);

    write(&path, b"a=2", Privacy::Public, true).unwrap();
    assert_eq!(mode(&path), 0o664);

    write(&path, b"d=2", Privacy::Private, true).unwrap();
    assert_eq!(mode(&path), 0o640);

    write(&path, b"d=3", Privacy::Owner, true).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_replaced_file_keeps_its_owner_and_group() {
    use std::os::unix::fs::chown;

    let folder = folder();
    let path = folder.path().join("application.properties");
    fs::write(&path, b"a=1").unwrap();
    if chown(&path, Some(4711), Some(4712)).is_err() {
        println!("skipped: only root gives a file to another user");
        return;
    }

    write(&path, b"d=2", Privacy::Private, true).unwrap();

    let about = fs::metadata(&path).unwrap();
    assert_eq!((about.uid(), about.gid()), (4711, 4712));
    assert_eq!(fs::read(&path).unwrap(), b"d=2");
}

#[test]
fn a_symbolic_link_stays_and_its_file_is_written() {
    let folder = folder();
    fs::create_dir(folder.path().join("real")).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("real/file", &link).unwrap();

    write(&link, b"text", Privacy::Private, true).unwrap();

    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(folder.path().join("real/file")).unwrap(), b"text");
    let circle = folder.path().join("circle");
    std::os::unix::fs::symlink("circle", &circle).unwrap();
    let refused = write(&circle, b"x", Privacy::Private, true);
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("leads to no file")
    );
}

#[test]
fn when_the_second_file_cannot_be_replaced_the_first_is_put_back() {
    let folder = folder();
    let [old, fresh, broken] = ["old", "fresh", "broken"].map(|name| folder.path().join(name));
    fs::write(&old, b"before").unwrap();
    let staged = [&old, &fresh, &broken]
        .map(|path| Staged::new(path, b"after", Privacy::Public, None).unwrap());
    fs::create_dir_all(broken.join("in the way")).unwrap();

    let result = commit_all(staged.into());

    assert!(matches!(result.unwrap_err().kind(), Kind::NotWritten));
    assert_eq!(fs::read(&old).unwrap(), b"before");
    assert_eq!(names(folder.path()), ["broken", "old"]);
}

#[test]
fn all_files_are_replaced_when_every_one_can_be() {
    let folder = folder();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    fs::write(&one, b"before").unwrap();
    let staged =
        [&one, &two].map(|path| Staged::new(path, b"after", Privacy::Public, None).unwrap());

    commit_all(staged.into()).unwrap();

    assert_eq!(fs::read(&one).unwrap(), b"after");
    assert_eq!(fs::read(&two).unwrap(), b"after");
    assert_eq!(names(folder.path()), ["one", "two"]);
}

#[test]
fn a_staged_file_that_is_given_up_leaves_nothing() {
    let folder = folder();

    drop(Staged::new(&folder.path().join("a"), b"text", Privacy::Private, None).unwrap());

    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_second_writer_learns_that_the_folder_is_busy() {
    let folder = folder();
    let first = FolderLock::acquire(&folder.path().join("x")).unwrap();

    let second = FolderLock::acquire(&folder.path().join("x"));

    assert!(matches!(second.unwrap_err().kind(), Kind::Busy));
    drop(first);
    FolderLock::acquire(&folder.path().join("x")).unwrap();
}

#[test]
fn a_folder_that_is_not_there_is_an_error_of_the_system() {
    let folder = folder();

    let path = folder.path().join("missing/file");
    let result = write(&path, b"x", Privacy::Private, false);

    assert!(matches!(result.unwrap_err().kind(), Kind::NotWritten));
}

/// An ACL as the system keeps it: version 2, then tag, rights and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ANY: u32 = u32::MAX;
const ACCESS: &str = "system.posix_acl_access";

/// Sets an attribute; returns `false` where the file system has none, and says so.
fn set(path: &Path, name: &str, value: &[u8]) -> bool {
    let set = setxattr(path, name, value, XattrFlags::empty());
    if let Err(error) = set {
        println!("skipped: {name} cannot be set here: {error}");
    }
    set.is_ok()
}

fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let length = getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
fn an_acl_and_every_attribute_survive_a_write() {
    let folder = folder();
    let path = folder.path().join("application.properties");
    fs::write(&path, b"a=1").unwrap();
    // user::rw-, user:12345:r--, group::---, mask::r--, other::---
    let entries = [
        (1, 6, ANY),
        (2, 4, 12345),
        (4, 0, ANY),
        (16, 4, ANY),
        (32, 0, ANY),
    ];
    if !set(&path, ACCESS, &acl(&entries)) || !set(&path, "user.note", b"kept") {
        return;
    }

    write(&path, b"d=2", Privacy::Private, true).unwrap();

    assert_eq!(fs::read(&path).unwrap(), b"d=2");
    assert_eq!(get(&path, ACCESS).unwrap(), acl(&entries));
    assert_eq!(get(&path, "user.note").unwrap(), b"kept");
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn a_write_takes_from_an_acl_what_it_takes_from_a_mode() {
    let folder = folder();
    let path = folder.path().join("application.properties");
    fs::write(&path, b"a=1").unwrap();
    let with_mask = |mask, other| {
        [
            (1, 6, ANY),
            (2, 6, 12345),
            (4, 4, ANY),
            (16, mask, ANY),
            (32, other, ANY),
        ]
    };
    if !set(&path, ACCESS, &acl(&with_mask(6, 4))) {
        return;
    }

    write(&path, b"d=2", Privacy::Private, true).unwrap();

    assert_eq!(get(&path, ACCESS).unwrap(), acl(&with_mask(4, 0)));
}

#[test]
fn a_default_acl_of_the_folder_opens_nothing() {
    let folder = folder();
    let path = folder.path().join("application.properties");
    fs::write(&path, b"a=1").unwrap();
    chmod(&path, 0o640);
    let entries = [
        (1, 7, ANY),
        (2, 7, 12345),
        (4, 7, ANY),
        (16, 7, ANY),
        (32, 7, ANY),
    ];
    if !set(folder.path(), "system.posix_acl_default", &acl(&entries)) {
        return;
    }

    write(&path, b"d=2", Privacy::Private, true).unwrap();

    assert_eq!(get(&path, ACCESS), None);
    assert_eq!(mode(&path), 0o640);
}

#[test]
fn an_attribute_that_cannot_be_kept_is_named() {
    let folder = folder();
    let [old, pipe] = ["old", "pipe"].map(|name| folder.path().join(name));
    fs::write(&old, b"a=1").unwrap();
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    if !set(&old, "user.note", b"x") {
        return;
    }
    // No pipe has such an attribute.
    let new = File::options().read(true).write(true).open(&pipe).unwrap();

    let refused = carry_over(&File::open(&old).unwrap(), &new, Privacy::Public).unwrap_err();

    assert!(
        refused.to_string().contains("`user.note` cannot be kept"),
        "{refused}"
    );
}

#[test]
fn a_line_that_is_appended_meanwhile_is_never_lost() {
    for at in ["before the comparison", "after it"] {
        let folder = folder();
        let path = folder.path().join("file");
        fs::write(&path, b"a=1\n").unwrap();
        let read = digest(&mut File::open(&path).unwrap()).unwrap();
        let staged = Staged::new(&path, b"a=2\n", Privacy::Public, Some(read)).unwrap();
        let append = move |path: &Path| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(b"b=1\n").unwrap();
        };
        let refused = if at == "after it" {
            // The appender has opened the file that is renamed over.
            let appended = path.clone();
            kill::at_next_point(move || append(&appended));
            staged.commit().map(drop)
        } else {
            append(&path);
            commit_all(vec![staged])
        };

        assert!(matches!(refused.unwrap_err().kind(), Kind::Changed), "{at}");
        assert_eq!(fs::read(&path).unwrap(), b"a=1\nb=1\n", "{at}");
        assert_eq!(names(folder.path()), ["file"], "{at}");
    }
}

#[test]
fn a_reader_of_the_folder_cannot_hold_up_a_write() {
    let folder = folder();
    let held = File::open(folder.path()).unwrap();
    held.try_lock().unwrap();

    let _lock = FolderLock::acquire(&folder.path().join("x")).unwrap();

    assert_eq!(mode(&folder.path().join(LOCK)), 0o600);
}
