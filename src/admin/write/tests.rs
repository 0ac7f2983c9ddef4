use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
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
    let staged =
        [&old, &fresh, &broken].map(|path| Staged::new(path, b"after", Privacy::Public).unwrap());
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
    let staged = [&one, &two].map(|path| Staged::new(path, b"after", Privacy::Public).unwrap());

    commit_all(staged.into()).unwrap();

    assert_eq!(fs::read(&one).unwrap(), b"after");
    assert_eq!(fs::read(&two).unwrap(), b"after");
    assert_eq!(names(folder.path()), ["one", "two"]);
}

#[test]
fn a_staged_file_that_is_given_up_leaves_nothing() {
    let folder = folder();

    drop(Staged::new(&folder.path().join("a"), b"text", Privacy::Private).unwrap());

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
