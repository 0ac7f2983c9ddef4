#![cfg(test)]
//! Random texts, read by `java.util.Properties` and by ours. Skipped where there is no `java`.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use countersign::internals::Document;
use countersign::internals::Finding;

/// Different texts that are read.
const TEXTS: usize = 140_000;

/// How many of them must be compared.
const COMPARED: usize = 100_000;

/// What texts are made of: everything the grammar gives a meaning.
const PIECES: &[&str] = &[
    "a",
    "b",
    "key",
    "1",
    "é",
    "😀",
    "=",
    ":",
    " ",
    "\t",
    "\u{c}",
    "\\",
    "\\\\",
    "\n",
    "\r",
    "\r\n",
    "#",
    "!",
    "\\\n",
    "\\\r\n",
    "\\\n  ",
    "\\u0041",
    "\\u00e9",
    "\\u",
    "\\u12",
    "\\t",
    "\\n",
    "\\=",
    "\\ ",
    "{",
    "\"",
    "a=b",
    "\n\n",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\U0041",
    "\\f",
    "\\x",
    "\0",
    "\u{b}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
];

#[test]
fn random_texts_are_read_as_java_reads_them() {
    let mut seen = HashSet::new();
    let texts = (0..).map(text).filter(|text| seen.insert(text.clone()));
    let texts: Vec<String> = texts.take(TEXTS).collect();
    let Some(expected) = java(&texts) else {
        // `eprintln` would not be shown for a test that passes.
        writeln!(
            std::io::stderr(),
            "skipped: there is no `java` (11 or later) here"
        )
        .unwrap();
        return;
    };

    let mut compared = 0;
    for (text, expected) in texts.iter().zip(expected) {
        let document = Document::parse(Path::new("a"), text);
        let faults: Vec<_> = document
            .faults()
            .iter()
            .map(|fault| document.describe(fault))
            .collect();
        if faults.iter().any(is_half_a_pair) {
            // Java has such text. Ours refuses it: no byte sequence is its UTF-8.
            assert!(expected.is_some() || faults.len() > 1, "{text:?}");
            continue;
        }
        let ours = faults.is_empty().then(|| {
            let pairs = document.entries().iter();
            let strings = pairs.flat_map(|entry| [entry.key(), entry.value()]);
            strings.map(str::to_owned).collect::<Vec<_>>()
        });
        assert_eq!(ours, expected, "{text:?}");
        compared += 1;
    }
    assert!(compared >= COMPARED, "{compared}");
}

fn is_half_a_pair(finding: &Finding) -> bool {
    finding.message.contains("surrogate")
}

/// Makes the text of number `seed`: the same at every run.
fn text(seed: u32) -> String {
    let mut state = u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap()
    };
    let length = next() % 24;
    (0..length).map(|_| PIECES[next() % PIECES.len()]).collect()
}

/// Reads `texts` with Java: per text its strings, or none where Java throws.
fn java(texts: &[String]) -> Option<Vec<Option<Vec<String>>>> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/LoadProperties.java");
    let mut child = Command::new("java")
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let mut input = Vec::new();
    for text in texts {
        input.extend(i32::try_from(text.len()).ok()?.to_be_bytes());
        input.extend(text.as_bytes());
    }
    input.extend((-1_i32).to_be_bytes());
    let mut stdin = child.stdin.take()?;
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut output = Vec::new();
    child.stdout.take()?.read_to_end(&mut output).ok()?;
    let written = writer.join().is_ok_and(|result| result.is_ok());
    if !child.wait().ok()?.success() || !written {
        return None;
    }
    let mut rest = output.as_slice();
    Some(texts.iter().map(|_| strings(&mut rest)).collect())
}

fn strings(rest: &mut &[u8]) -> Option<Vec<String>> {
    let count = usize::try_from(int(rest)).ok()?;
    let mut string = || {
        let length = usize::try_from(int(rest)).unwrap();
        let (bytes, tail) = rest.split_at(length);
        *rest = tail;
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    Some((0..count).map(|_| string()).collect())
}

fn int(rest: &mut &[u8]) -> i32 {
    let (bytes, tail) = rest.split_first_chunk().unwrap();
    *rest = tail;
    i32::from_be_bytes(*bytes)
}
