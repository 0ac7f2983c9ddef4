//! The newest refusal of a JSON log: read from its end, bounded, whatever stands in it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::dpm::Refused;
use crate::token::Reason;

/// A refusal that a module logged. Every text in it may be a stranger's.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The file that tells it.
    pub file: PathBuf,
    members: Map<String, Value>,
}

impl Rejection {
    /// Returns a member of the log line, such as `reason` or `fingerprint`.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member).and_then(Value::as_str)
    }

    /// Returns its reason where that is one of the list; none where a log tells of something else,
    /// such as a limit.
    pub fn reason(&self) -> Option<Reason> {
        reason(&self.members)
    }

    /// Returns what follows the reason, where a module was told one.
    pub fn after_reason(&self) -> &str {
        let text = self.text("reason").unwrap_or_default();
        match self.text("eventId") {
            Some(NOT_READY | CHECK_FAILED) => Refused::detail(text),
            _ => text.split_once(": ").map_or("", |(_, rest)| rest),
        }
    }

    /// Tells on which side it was refused, as seen from the module that wrote the log, and who
    /// refused what.
    pub fn side(&self) -> (Side, &'static str) {
        let text = self.text("reason").unwrap_or_default();
        let event = self.text("eventId").unwrap_or_default();
        if event == "registerRefused" {
            let proof = matches!(
                self.reason(),
                Some(Reason::ProofMissing | Reason::ProofInvalid)
            );
            return if proof || text.starts_with("not called") {
                (Side::Here, "this engine does not accept the DPM")
            } else {
                (Side::Peer, "the DPM does not register this engine")
            };
        }
        match (event, Refused::read(text).map(|(refused, _)| refused)) {
            (NOT_READY, Some(Refused::Undialled)) => {
                (Side::Peer, "the DPM does not dial this engine")
            }
            (NOT_READY, Some(Refused::Answer)) => {
                (Side::Peer, "the DPM does not accept this engine's answer")
            }
            (NOT_READY, _) => (Side::Here, "this engine refuses the DPM's call"),
            (CHECK_FAILED, Some(Refused::Undialled)) => {
                (Side::Here, "this DPM does not dial the engine")
            }
            (CHECK_FAILED, Some(Refused::Answer)) => {
                (Side::Here, "this DPM does not accept the engine's answer")
            }
            (CHECK_FAILED, _) => (Side::Peer, "the engine refuses this DPM's call"),
            _ => (Side::Here, "this module refused a call"),
        }
    }

    /// Returns what exactly was wrong, as the module wrote it.
    pub fn detail(&self) -> Option<&str> {
        let message = self.text("message")?;
        Some(
            message
                .split_once("message=")
                .map_or(message, |(_, text)| text),
        )
    }
}

/// A side of a refused call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The module that wrote the log.
    Here,
    /// The other one.
    Peer,
}

impl Side {
    /// Returns its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Peer => "peer",
        }
    }
}

/// Finds the newest `authRejected` in the log `file` or in those that were rolled away from it
/// (`<file>.1` to `<file>.7`); of a folder, in the log that modules write there.
///
/// Reads at most the last 16 MiB of each file. Lines that are no JSON are passed over.
///
/// # Errors
///
/// When `file` cannot be read.
pub fn newest(file: &Path) -> io::Result<Option<Rejection>> {
    newest_of(file, &["authRejected"])
}

/// As [`newest`], but also finds refusals that a module was told: `registerRefused`, and
/// `engineNotReady` and `engineCheckFailed` where their reason is one of the list.
///
/// # Errors
///
/// When `file` cannot be read.
pub fn newest_of_either_side(file: &Path) -> io::Result<Option<Rejection>> {
    let events = ["authRejected", "registerRefused", NOT_READY, CHECK_FAILED];
    newest_of(file, &events)
}

// The events of a dial-back that failed: not always because of a refusal.
const NOT_READY: &str = "engineNotReady";
const CHECK_FAILED: &str = "engineCheckFailed";

/// Names the log at `path`: of a folder, the one that modules write there.
pub fn log_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("spring-boot-logger.json.log")
    } else {
        path.to_owned()
    }
}

/// As [`newest`], but finds the newest line with any of `events`.
pub(super) fn newest_of(file: &Path, events: &[&str]) -> io::Result<Option<Rejection>> {
    let file = log_of(file);
    if let Some(found) = newest_in(&file, events)? {
        return Ok(Some(found));
    }
    for n in 1..=MOST_ROLLED {
        let mut name = file.clone().into_os_string();
        name.push(format!(".{n}"));
        match newest_in(Path::new(&name), events) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

const MOST_ROLLED: u32 = 7;
const MOST_READ: u64 = 16 * 1024 * 1024;
const CHUNK: u64 = 64 * 1024;
/// A log line has 8192 characters and a few members more; what is longer is none.
const LONGEST_LINE: usize = 256 * 1024;

fn newest_in(path: &Path, events: &[&str]) -> io::Result<Option<Rejection>> {
    // To open a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut end = file.metadata()?.len();
    let first = end.saturating_sub(MOST_READ);
    // The beginning of a line whose rest was read before.
    let mut rest: Vec<u8> = Vec::new();
    while end > first {
        let start = end.saturating_sub(CHUNK).max(first);
        file.seek(SeekFrom::Start(start))?;
        let mut chunk = Vec::new();
        file.by_ref().take(end - start).read_to_end(&mut chunk)?;
        end = start;
        chunk.append(&mut rest);
        let mut lines = chunk.split(|byte| *byte == b'\n');
        // Its beginning may stand in the chunk before.
        let cut = lines.next().unwrap_or_default().to_vec();
        if let Some(members) = lines.rev().find_map(|line| told(line, events)) {
            let file = path.to_owned();
            return Ok(Some(Rejection { file, members }));
        }
        if start == 0 {
            let file = path.to_owned();
            return Ok(told(&cut, events).map(|members| Rejection { file, members }));
        }
        rest = cut;
        if rest.len() > LONGEST_LINE {
            rest = Vec::new();
        }
    }
    Ok(None)
}

fn told(line: &[u8], events: &[&str]) -> Option<Map<String, Value>> {
    // Most lines are others: those are not parsed.
    let holds = |word: &&str| {
        let mut parts = line.windows(word.len());
        parts.any(|part| part == word.as_bytes())
    };
    if line.len() > LONGEST_LINE || !events.iter().any(holds) {
        return None;
    }
    let value: Value = serde_json::from_slice(line).ok()?;
    let Value::Object(members) = value else {
        return None;
    };
    let event = members.get("eventId").and_then(Value::as_str)?;
    let refused = match event {
        NOT_READY | CHECK_FAILED => reason(&members).is_some(),
        // One that says nothing hides none that does.
        _ => members.get("reason").is_some_and(Value::is_string),
    };
    (events.contains(&event) && refused).then_some(members)
}

/// Reads the reason from where the module itself wrote it; the rest may be a stranger's.
fn reason(members: &Map<String, Value>) -> Option<Reason> {
    let member = |name| members.get(name).and_then(Value::as_str);
    let text = member("reason")?;
    match member("eventId")? {
        NOT_READY | CHECK_FAILED => Refused::read(text).map(|(_, reason)| reason),
        "registerRefused" => text.split_once(": ")?.0.parse().ok(),
        _ => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(reason: &str) -> String {
        let message = format!("eventId=authRejected reason={reason}, message=why {reason}");
        let line =
            serde_json::json!({"eventId": "authRejected", "reason": reason, "message": message});
        format!("{line}\n")
    }

    #[test]
    fn line_without_a_reason_hides_no_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(
            &path,
            line("KEY_REVOKED") + "{\"eventId\":\"authRejected\"}\n",
        )
        .unwrap();

        let found = newest(&path).unwrap().unwrap();

        assert_eq!(found.reason(), Some(Reason::KeyRevoked));
    }

    #[test]
    fn newest_is_found_however_far_from_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let other =
            "{\"eventId\":\"startup\",\"message\":\"authRejected\"}\nno JSON authRejected\n";
        for lines in [0, 1, 2000, 5000] {
            let text = line("OLD") + &line("NEW") + &other.repeat(lines);
            fs::write(&path, text).unwrap();

            let found = newest(&path).unwrap().unwrap();

            assert_eq!(found.text("reason"), Some("NEW"), "{lines}");
            assert_eq!(found.detail(), Some("why NEW"));
        }
    }

    #[test]
    fn rolled_files_are_looked_at_next_and_a_folder_means_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spring-boot-logger.json.log");
        fs::write(&path, "{}\n").unwrap();
        fs::write(
            folder.path().join("spring-boot-logger.json.log.3"),
            line("ROLLED"),
        )
        .unwrap();

        let found = newest(folder.path()).unwrap().unwrap();

        assert_eq!(found.text("reason"), Some("ROLLED"));
        assert!(found.file.ends_with("spring-boot-logger.json.log.3"));
    }

    #[test]
    fn a_line_without_end_and_one_at_the_very_beginning_are_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, line("ONLY").trim_end()).unwrap();

        assert_eq!(newest(&path).unwrap().unwrap().text("reason"), Some("ONLY"));

        fs::write(&path, "x".repeat(3 * 1024 * 1024)).unwrap();
        assert!(newest(&path).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(newest(&path).unwrap().is_none());
        assert!(newest(&folder.path().join("nothing")).is_err());
    }
}
