//! The newest refusal of a JSON log: bounded, whatever the log holds.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::iter;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::clock::from_rfc3339;
use crate::engine::FailureKind;
use crate::files;
use crate::token::Reason;

/// A refusal that a module logged. Every text in it is untrusted.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The file that holds it.
    pub file: PathBuf,
    members: Map<String, Value>,
}

/// The event of a call that the module refused.
pub const REJECTED: &[&str] = &["authRejected"];

/// The events of a refusal by either side. A failed dial-back is one only if its line has a reason.
pub const REFUSED: &[&str] = &[
    "authRejected",
    REGISTER_REFUSED,
    DUPLICATE,
    "engineNotReady",
    "engineCheckFailed",
];

/// The event of an engine that was refused a registration.
pub const REGISTER_REFUSED: &str = "registerRefused";

/// The event of an engine whose id another process has.
pub const DUPLICATE: &str = "engineDuplicate";

impl Rejection {
    /// Returns when it was logged.
    fn time(&self) -> Option<SystemTime> {
        from_rfc3339(self.text("@timestamp")?)
    }

    /// Returns how many events its line stands for.
    fn count(&self) -> u64 {
        let more = self.members.get("suppressed").and_then(Value::as_u64);
        more.unwrap_or_default().saturating_add(1)
    }

    /// Returns a member of the log line, such as `reason` or `fingerprint`.
    pub fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member).and_then(Value::as_str)
    }

    /// Returns its reason; `None` if a registration is refused because of something else, such as a
    /// limit.
    pub fn reason(&self) -> Option<Reason> {
        self.text("reason")?.parse().ok()
    }

    /// Returns `true` if the engine was refused a registration.
    pub fn is_of_registration(&self) -> bool {
        matches!(self.text("eventId"), Some(REGISTER_REFUSED | DUPLICATE))
    }

    /// Returns `true` if another process has the engine's id.
    pub fn is_duplicate(&self) -> bool {
        self.text("eventId") == Some(DUPLICATE)
    }

    /// Returns `true` if the two clocks are why.
    pub fn clocks_differ(&self) -> bool {
        self.text("kind") == Some(FailureKind::ClocksDiffer.as_str())
    }

    /// Returns the side that refused, as seen from the module that wrote the log, and what it
    /// refused.
    pub fn side(&self) -> (&'static str, &'static str) {
        let event = self.text("eventId").unwrap_or_default();
        match (event, self.text("side") == Some("peer")) {
            (REGISTER_REFUSED | DUPLICATE, true) => {
                ("peer", "the DPM does not register this engine")
            }
            ("engineNotReady", true) => ("peer", "the DPM does not accept this engine"),
            (_, true) => ("peer", "the engine refuses this DPM's call"),
            (REGISTER_REFUSED, false) => ("here", "this engine does not accept the DPM"),
            ("engineNotReady", false) => ("here", "this engine refuses the DPM's call"),
            ("engineCheckFailed", false) => ("here", "this DPM does not accept the engine"),
            (_, false) => ("here", "this module refused a call"),
        }
    }
}

/// Returns the log at `path`: of a folder, the one that modules write there.
pub fn log_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join("spring-boot-logger.json.log")
    } else {
        path.to_owned()
    }
}

/// Finds the newest line of one of `events` in the log `file`, or in those that were rolled away
/// from it (`<file>.1` to `<file>.7`); of a folder, in the log that modules write there.
///
/// Reads at most the last 16 MiB of each file. Lines that are not JSON are skipped.
///
/// # Errors
///
/// When `file` cannot be read.
pub fn newest(file: &Path, events: &[&str]) -> io::Result<Option<Rejection>> {
    let file = log_of(file);
    let rolled = (1..=MOST_ROLLED).map(|n| {
        let mut name = file.clone().into_os_string();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    });
    for log in iter::once(file.clone()).chain(rolled.filter(|file| file.exists())) {
        if let Some(found) = newest_in(log, events)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What is refused before the registry has the call, and by the registry itself.
const REGISTER: [&str; 2] = [
    "/countersign.registry.v1.EngineRegistryService/RegisterEngine",
    "RegisterEngine",
];

const MOST_ROLLED: u32 = 7;
const MOST_READ: u64 = 16 * 1024 * 1024;
/// Longer than any line that a module logs: 8192 characters, and a few members more.
const LONGEST_LINE: usize = 256 * 1024;

/// Finds the newest registration with a key that the module whose log is at `file` refused after
/// `since`, and counts those of the same reason and key.
pub fn refused_registration(file: &Path, since: SystemTime) -> Option<(Rejection, u64)> {
    let file = log_of(file);
    let text = tail(&file).ok()?;
    let lines = text.split(|byte| *byte == b'\n').rev();
    let all = lines.filter_map(|line| refusal(line, REJECTED));
    let mut refused = all
        .map(|members| Rejection {
            file: file.clone(),
            members,
        })
        .take_while(|line| line.time().is_some_and(|time| time >= since))
        .filter(|line| {
            // Every stranger can be refused without a key.
            let has_key = line.text("fingerprint").is_some_and(|key| !key.is_empty());
            has_key
                && line
                    .text("method")
                    .is_some_and(|method| REGISTER.contains(&method))
        });
    let newest = refused.next()?;
    let like = refused.filter(|line| {
        ["reason", "fingerprint"]
            .iter()
            .all(|member| line.text(member) == newest.text(member))
    });
    let count = like.fold(newest.count(), |count, line| {
        count.saturating_add(line.count())
    });
    Some((newest, count))
}

fn newest_in(file: PathBuf, events: &[&str]) -> io::Result<Option<Rejection>> {
    let text = tail(&file)?;
    let mut lines = text.split(|byte| *byte == b'\n').rev();
    let found = lines.find_map(|line| refusal(line, events));
    Ok(found.map(|members| Rejection { file, members }))
}

/// Reads the end of a log, from the beginning of a line.
fn tail(file: &Path) -> io::Result<Vec<u8>> {
    let mut log = files::open(file)?;
    let start = log.metadata()?.len().saturating_sub(MOST_READ);
    log.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    log.take(MOST_READ).read_to_end(&mut text)?;
    if start > 0 {
        // The beginning of its first line was not read.
        let whole = text.iter().position(|byte| *byte == b'\n');
        text.drain(..whole.unwrap_or(text.len()));
    }
    Ok(text)
}

fn refusal(line: &[u8], events: &[&str]) -> Option<Map<String, Value>> {
    // Most lines are others: those are not parsed.
    let mut words = events.iter().map(|event| event.as_bytes());
    if line.len() > LONGEST_LINE
        || !words.any(|word| line.windows(word.len()).any(|part| part == word))
    {
        return None;
    }
    let members: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let [event, reason, detail] =
        ["eventId", "reason", "detail"].map(|member| members.get(member).and_then(Value::as_str));
    // A line that says nothing hides none that does.
    let is_refusal = reason.is_some() || event == Some(REGISTER_REFUSED) && detail.is_some();
    (events.contains(&event?) && is_refusal).then_some(members)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(reason: &str) -> String {
        let detail = format!("why {reason}");
        let line =
            serde_json::json!({"eventId": "authRejected", "reason": reason, "detail": detail});
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

        let found = newest(&path, REJECTED).unwrap().unwrap();

        assert_eq!(found.reason(), Some(Reason::KeyRevoked));
    }

    #[test]
    fn refused_registrations_are_counted_of_one_reason_and_key_and_a_recent_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let line = |time: &str, key: &str, method: &str, suppressed: u64| {
            let time = format!("2026-01-31T12:{time}.000+00:00");
            let line = serde_json::json!({"@timestamp": time, "eventId": "authRejected",
                "reason": "KEY_UNKNOWN", "fingerprint": key, "method": method,
                "suppressed": suppressed});
            format!("{line}\n")
        };
        let register = "/countersign.registry.v1.EngineRegistryService/RegisterEngine";
        let lines = [
            line("00:00", "a", register, 100),
            line("01:00", "a", register, 4),
            line("01:30", "b", register, 50),
            line("02:00", "a", "RegisterEngine", 6),
            line("02:00", "", register, 7),
            line("02:00", "c", "/anything/RegisterEngine", 8),
            line(
                "02:01",
                "a",
                "/countersign.identity.v1.IdentityService/WhoAmI",
                9,
            ),
        ];
        fs::write(&path, lines.concat()).unwrap();
        let since = |time: &str| from_rfc3339(time).unwrap();

        let (newest, count) = refused_registration(&path, since("2026-01-31T12:00:30Z")).unwrap();
        let none = refused_registration(&path, since("2026-01-31T12:02:01Z"));

        assert_eq!(newest.reason(), Some(Reason::KeyUnknown));
        assert_eq!((newest.text("fingerprint"), count), (Some("a"), 12));
        assert!(none.is_none());
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

            let found = newest(&path, REJECTED).unwrap().unwrap();

            assert_eq!(found.text("reason"), Some("NEW"), "{lines}");
            assert_eq!(found.text("detail"), Some("why NEW"));
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

        let found = newest(folder.path(), REJECTED).unwrap().unwrap();

        assert_eq!(found.text("reason"), Some("ROLLED"));
        assert!(found.file.ends_with("spring-boot-logger.json.log.3"));
    }

    #[test]
    fn a_line_without_end_and_one_at_the_very_beginning_are_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, line("ONLY").trim_end()).unwrap();

        assert_eq!(
            newest(&path, REJECTED).unwrap().unwrap().text("reason"),
            Some("ONLY")
        );

        fs::write(&path, "x".repeat(3 * 1024 * 1024)).unwrap();
        assert!(newest(&path, REJECTED).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(newest(&path, REJECTED).unwrap().is_none());
        assert!(newest(&folder.path().join("nothing"), REJECTED).is_err());
    }
}
