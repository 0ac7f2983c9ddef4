//! Placeholders for what differs between two runs of the same command.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What a match is replaced by.
enum Placeholder {
    /// The same text for every match.
    Fixed(&'static str),
    /// A name with a number that is the same for equal values.
    Numbered(&'static str),
}

use Placeholder::{Fixed, Numbered};

/// Each pattern with its placeholder, which takes the place of the group `v`.
static RULES: LazyLock<Vec<(Regex, Placeholder)>> = LazyLock::new(|| {
    let rules = [
        (
            r"(?m)(?P<v>[\w/.-]*/countersign-demo-\w+)",
            Fixed("«temporary folder»"),
        ),
        (
            r"(?s)-----BEGIN [A-Z ]*(?:KEY|CERTIFICATE)-----\n(?P<v>.*?)\n-----END",
            Fixed("«base64»"),
        ),
        (r"(?P<v>eyJ[\w-]+\.[\w-]+\.[\w-]*)", Fixed("«token»")),
        (r"(?P<v>\b[A-Za-z0-9+/_-]{60,}=*)", Fixed("«base64»")),
        (r"(?P<v>[A-Za-z0-9_-]{43,})", Numbered("key material")),
        (r" (?P<v>[\w-]{12})…", Fixed("«start»")),
        (r"(?m)^(?P<v>\d\d:\d\d:\d\d\.\d{3})", Fixed("«time»")),
        (
            r"(?P<v>\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b)",
            Numbered("id"),
        ),
        (r"(?m)^(?P<v>[0-9a-f]{8}) +\S+:", Numbered("short id")),
        (
            r"(?P<v>\b20\d\d-\d\d-\d\d[T ][\d:.]+(?:Z|[+-]\d\d:\d\d))",
            Fixed("«time»"),
        ),
        (r"(?P<v>\b20\d\d-\d\d-\d\d\b)", Fixed("«date»")),
        (
            r#""(?:age_seconds|\w*_seconds_ago|\w*_in_seconds|milliseconds|seconds|\w+_ms)": (?P<v>[\d.]+)"#,
            Fixed("«number»"),
        ),
        (r"(?P<v>\b(?:\d{10}|\d{13})\b)", Fixed("«epoch»")),
        (
            r"(?:127\.0\.0\.1|localhost|\[::1\]):(?P<v>\d{4,5}\b)",
            Numbered("port"),
        ),
        (r#"port(?:=|": | +)(?P<v>\d{4,5}\b)"#, Numbered("port")),
        (r"process (?P<v>\d+)", Fixed("«pid»")),
        (r#"pid(?:=|": )(?P<v>\d+)"#, Fixed("«pid»")),
        (
            r"localhost → (?P<v>.*?)(?:  |\n|\x22)",
            Fixed("«addresses»"),
        ),
        (
            r"(?P<v> *\b\d+(?:\.\d+)? (?:ms|µs)\b)",
            Fixed(" «duration»"),
        ),
        (r"(?P<v>\b\d+ s) ago", Fixed("«seconds»")),
        (r"\(age (?P<v>[^)]+)\)", Fixed("«age»")),
        (
            r"\b(?:within|in|for|issued) (?P<v>\d+(?:\.\d+)? s\b)",
            Fixed("«seconds»"),
        ),
    ];
    let compiled = rules.into_iter();
    compiled
        .map(|(pattern, placeholder)| (Regex::new(pattern).unwrap(), placeholder))
        .collect()
});

/// Replaces changing values, and remembers which it has numbered.
#[derive(Default)]
pub(super) struct Scrubber {
    numbered: Vec<(&'static str, String)>,
    /// The words of blocks, which two machines compare.
    words: Vec<String>,
}

impl Scrubber {
    pub(super) fn scrub(&mut self, text: &str) -> String {
        let printed = text.lines();
        let printed = printed.filter_map(|line| {
            let json = line.trim_start().strip_prefix("\"words\": \"");
            let in_json = json.and_then(|rest| rest.split('"').next());
            line.strip_prefix("words   ").or(in_json)
        });
        self.words.extend(printed.map(str::to_owned));
        let mut text = text.replace(env!("CARGO_PKG_VERSION"), "«version»");
        for words in &self.words {
            text = text.replace(words, "«words»");
            text = text.replace(&words.replace(' ', "-"), "«words»");
        }
        RULES.iter().fold(text, |text, (pattern, placeholder)| {
            let replace = |found: &Captures<'_>| self.replace(found, placeholder);
            pattern.replace_all(&text, replace).into_owned()
        })
    }

    fn replace(&mut self, found: &Captures<'_>, placeholder: &Placeholder) -> String {
        let whole = found.get(0).unwrap();
        let value = found.name("v").unwrap();
        let by = match placeholder {
            Fixed(text) => (*text).to_owned(),
            Numbered("key material") if !is_key_material(value.as_str()) => {
                value.as_str().to_owned()
            }
            Numbered(name) => format!("«{name} {}»", self.number(name, value.as_str())),
        };
        let before = value.start() - whole.start();
        let after = value.end() - whole.start();
        let (head, rest) = whole.as_str().split_at(before);
        let (_, tail) = rest.split_at(after - before);
        format!("{head}{by}{tail}")
    }

    fn number(&mut self, name: &'static str, value: &str) -> usize {
        let entry = (name, value.to_owned());
        if !self.numbered.contains(&entry) {
            self.numbered.push(entry.clone());
        }
        let same_kind = self.numbered.iter().filter(|(kind, _)| *kind == name);
        1 + same_kind.take_while(|known| **known != entry).count()
    }
}

/// A coordinate or a hash: names of settings have no capital letter.
fn is_key_material(value: &str) -> bool {
    value.len() == 43 && value.chars().any(|c| c.is_ascii_uppercase())
}
