use std::fs;
use std::path::Path;

use crate::properties::file::ReadFault;
use crate::properties::{Encoding, FileText};

fn fault(path: &Path) -> String {
    let error = FileText::read(path).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()));
    error.fault.to_string()
}

#[test]
fn file_that_cannot_be_read_has_one_cause() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };

    assert_eq!(fault(&dir.path().join("none")), "there is no such file");
    assert_eq!(fault(dir.path()), "it is a directory, not a file");
    for binary in [&b"\0\x01\x02\x03"[..], b"\x7fELF\0\xff\xfe", b"a\xff\0"] {
        assert_eq!(
            fault(&write("binary", binary)),
            "it is a binary file, not text"
        );
    }
    assert_eq!(
        fault(&write("zero", "# é\r\nname=é\0b\n".as_bytes())),
        "it holds a zero byte in line 2, column 7, so it is not text"
    );
    let wide = "it is UTF-16 or UTF-32 text; save it as UTF-8";
    assert_eq!(fault(&write("marked", b"\xff\xfea\0=\0")), wide);
    assert_eq!(fault(&write("unmarked", b"a\0=\x001\0")), wide);
    assert_eq!(fault(&write("four", b"a\0\0\0=\0\0\0")), wide);
    assert_eq!(fault(&write("four", b"\0\0\0a\0\0\0=")), wide);
    let large = vec![b'a'; 8 * 1024 * 1024 + 1];
    assert_eq!(fault(&write("large", &large)), "it is larger than 8 MiB");
    assert!(FileText::read(&write("most", &large[1..])).is_ok());
}

#[cfg(unix)]
#[test]
fn device_and_pipe_are_refused_without_waiting() {
    use std::os::unix::net::UnixListener;

    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    let special = "it is a pipe, socket or device; only a regular file is used";

    assert_eq!(fault(Path::new("/dev/zero")), special);
    assert_eq!(fault(&socket), special);
    if made.is_ok_and(|status| status.success()) {
        assert_eq!(fault(&pipe), special);
    }
}

#[cfg(unix)]
#[test]
fn link_to_itself_is_an_error_of_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loop");
    std::os::unix::fs::symlink(&path, &path).unwrap();

    let error = FileText::read(&path).unwrap_err();

    assert!(matches!(error.fault, ReadFault::Io(_)), "{error}");
}

/// Spring Boot reads every file as ISO-8859-1, and so makes `Ã©` of `é` in UTF-8.
#[test]
fn bytes_are_utf_8_else_latin_1() {
    let utf8 = FileText::from_bytes("k=é".as_bytes()).unwrap();
    assert_eq!((utf8.text(), utf8.encoding), ("k=é", Encoding::Utf8));

    let latin1 = FileText::from_bytes(b"k=\xe9").unwrap();
    assert_eq!((latin1.text(), latin1.encoding), ("k=é", Encoding::Latin1));
    assert_eq!(*latin1.encode("k=éx€"), b"k=\xe9x\\u20ac");
}

/// Java makes a byte order mark part of the first key.
#[test]
fn byte_order_mark_is_stripped_and_written_back() {
    let marked = FileText::from_bytes(b"\xef\xbb\xbfk=v").unwrap();

    assert!(marked.has_mark);
    assert_eq!(marked.text(), "k=v");
    assert_eq!(*marked.encode("k=w"), b"\xef\xbb\xbfk=w");
}

#[test]
fn debug_of_a_file_shows_no_text() {
    let text = FileText::from_bytes(b"generator.key=c2VjcmV0").unwrap();

    assert!(!format!("{text:?}").contains("c2VjcmV0"));
}

#[cfg(unix)]
#[test]
fn link_where_none_is_followed_is_called_one() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();

    let refused = ReadFault::from(crate::files::read_own(&link).unwrap_err());

    let text = "it is a symbolic link, which is not followed here; only a regular file is used";
    assert_eq!(refused.to_string(), text);
}
