//! The one place of this floor that reads a file: bounded, and never waiting.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::edit::escape;
use crate::files;
use crate::secret::Secret;

/// Why a file could not be read. Names the path and one cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`: {fault}", path.display())]
pub struct ReadError {
    /// The file.
    pub(crate) path: PathBuf,
    /// The cause.
    pub(crate) fault: ReadFault,
}

impl ReadError {
    /// The system gave `error` for the file at `path`.
    pub fn new(path: PathBuf, error: io::Error) -> Self {
        Self {
            path,
            fault: error.into(),
        }
    }
}

/// The causes of a [`ReadError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFault {
    /// Nothing there.
    #[error("there is no such file")]
    Missing,
    /// A folder.
    #[error("it is a directory, not a file")]
    Directory,
    /// More than 8 MiB.
    #[error("it is larger than 8 MiB")]
    TooLarge,
    /// More than 131,072 lines.
    #[error("it has more than 131072 lines")]
    TooLong,
    /// UTF-16 or UTF-32.
    #[error("it is UTF-16 or UTF-32 text; save it as UTF-8")]
    Wide,
    /// Text with a zero byte at this line and column, both counted from 1.
    #[error("it holds a zero byte in line {line}, column {column}, so it is not text")]
    Zero {
        /// The line.
        line: u32,
        /// The character within the line.
        column: u32,
    },
    /// Holds zero bytes, and little or no text.
    #[error("it is a binary file, not text")]
    Binary,
    /// Anything else the system says.
    #[error("{0}")]
    Io(io::Error),
}

impl ReadFault {
    /// Returns line and column of the first byte that is no text, in a file that is meant to be
    /// text; none where it is anything else that keeps the file from being read.
    pub fn no_text(&self) -> Option<(u32, u32)> {
        match self {
            Self::Wide => Some((1, 1)),
            Self::Zero { line, column } => Some((*line, *column)),
            _ => None,
        }
    }
}

/// The text of a file, and what is needed to write it back unchanged.
#[derive(Clone, Debug)]
pub struct FileText {
    text: Secret<String>,
    /// How the bytes were read.
    pub encoding: Encoding,
    /// Whether a byte order mark was stripped.
    pub has_mark: bool,
    /// The permission bits of the file, such as `0o600`, if the system has them.
    pub mode: Option<u32>,
    /// Identifies the bytes that were read.
    pub digest: ContentDigest,
}

/// The SHA-256 of a content.
pub type ContentDigest = [u8; 32];

/// Reads all of `file` again, and identifies its content.
///
/// # Errors
///
/// When the system refuses.
pub fn digest(file: &mut File) -> io::Result<ContentDigest> {
    let mut content = Zeroizing::new(Vec::new());
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(Sha256::digest(&*content).into())
}

/// How the bytes of a file are read as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// Valid UTF-8, as all ASCII is.
    Utf8,
    /// Anything else: each byte is one character, as Java reads it.
    Latin1,
}

/// Largest file, in bytes.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Most lines of a file.
const MAX_LINES: usize = 131_072;

/// The UTF-8 byte order mark.
const MARK: &[u8] = b"\xef\xbb\xbf";

impl FileText {
    /// Reads the file at `path`; a link is followed.
    ///
    /// # Errors
    ///
    /// When it is missing, unreadable, larger than 8 MiB, binary, UTF-16, or not a regular file.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        read_bytes(path)
            .and_then(|(bytes, metadata)| Self::decode(&bytes, Some(mode(&metadata))))
            .map_err(|fault| ReadError {
                path: path.to_owned(),
                fault,
            })
    }

    /// Reads the file at `path` as [`read`](Self::read) does, or returns `None` if it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// When it exists and cannot be read.
    pub fn read_if_there(path: &Path) -> Result<Option<Self>, ReadError> {
        match Self::read(path) {
            Err(error) if matches!(error.fault, ReadFault::Missing) => Ok(None),
            read => read.map(Some),
        }
    }

    /// Reads `bytes` as [`read`](Self::read) reads a file's.
    ///
    /// # Errors
    ///
    /// When they are larger than 8 MiB, binary or UTF-16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadFault> {
        Self::decode(bytes, None)
    }

    fn decode(bytes: &[u8], mode: Option<u32>) -> Result<Self, ReadFault> {
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(ReadFault::TooLarge);
        }
        // What is held of a line is many times as long as the shortest ones.
        let ends = [b'\n', b'\r'].map(|end| bytes.split(|byte| *byte == end).skip(1).count());
        if ends.into_iter().max() > Some(MAX_LINES) {
            return Err(ReadFault::TooLong);
        }
        let is_wide = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 0, 0xfe, 0xff, ..] => true,
            [0, a, 0, b, ..] | [a, 0, b, 0, ..] if *a != 0 && *b != 0 => true,
            [0, 0, 0, a, 0, ..] | [a, 0, 0, 0, ..] => *a >= b'\t',
            _ => false,
        };
        if is_wide {
            return Err(ReadFault::Wide);
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(zero(bytes, at));
        }
        let unmarked = bytes.strip_prefix(MARK);
        let body = unmarked.unwrap_or(bytes);
        let (text, encoding) = match std::str::from_utf8(body) {
            Ok(text) => (text.to_owned(), Encoding::Utf8),
            Err(_) => (
                body.iter().copied().map(char::from).collect(),
                Encoding::Latin1,
            ),
        };
        Ok(Self {
            text: text.into(),
            encoding,
            has_mark: unmarked.is_some(),
            mode,
            digest: Sha256::digest(bytes).into(),
        })
    }

    /// Returns the text, without a byte order mark.
    pub fn text(&self) -> &str {
        self.text.expose()
    }

    /// Returns `text`, an edited form of this text, as this file without a byte order mark.
    #[must_use]
    pub fn edited(&self, text: &str) -> Self {
        Self {
            text: text.to_owned().into(),
            encoding: self.encoding,
            has_mark: false,
            mode: self.mode,
            digest: Sha256::digest(text).into(),
        }
    }

    /// Writes `text`, an edited form of this text, as the bytes of this file: same encoding, same
    /// byte order mark. A character the encoding lacks becomes an escape.
    pub fn encode(&self, text: &str) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len().saturating_add(MARK.len())));
        if self.has_mark {
            bytes.extend_from_slice(MARK);
        }
        match self.encoding {
            Encoding::Utf8 => bytes.extend_from_slice(text.as_bytes()),
            Encoding::Latin1 => {
                for character in text.chars() {
                    match u8::try_from(character) {
                        Ok(byte) => bytes.push(byte),
                        Err(_) => bytes.extend_from_slice(escape(character).as_bytes()),
                    }
                }
            }
        }
        bytes
    }
}

/// Names the fault of a zero byte at `at`: in a text, or in something else.
fn zero(bytes: &[u8], at: usize) -> ReadFault {
    let odd = bytes
        .iter()
        .filter(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    let is_most = odd.count() > bytes.len() / 4;
    let (Ok(text), false) = (std::str::from_utf8(bytes), is_most) else {
        return ReadFault::Binary;
    };
    let before = text.get(..at).unwrap_or_default();
    let mut lines = before.split('\n');
    let last = lines.next_back().unwrap_or_default();
    let [line, column] = [lines.count(), last.chars().count()]
        .map(|count| u32::try_from(count.saturating_add(1)).unwrap_or(u32::MAX));
    ReadFault::Zero { line, column }
}

fn read_bytes(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Metadata), ReadFault> {
    let file = files::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_BYTES {
        return Err(ReadFault::TooLarge);
    }
    let size = usize::try_from(metadata.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(1)));
    file.take(MAX_BYTES.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::IsADirectory => Self::Directory,
            _ => Self::Io(error),
        }
    }
}

/// Returns the permission bits.
pub fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}
