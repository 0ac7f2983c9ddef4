#![cfg(test)]
//! Random texts, read by `java.util.Properties` and by ours. Skipped where there is no `java`.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use countersign::properties::Document;

const TEXTS: u32 = 100_000;

/// What texts are made of: everything the grammar gives a meaning.
const PIECES: &[&str] = &[
    "a", "b", "key", "1", "é", "😀", "=", ":", " ", "\t", "\u{c}", "\\", "\\\\", "\n", "\r",
    "\r\n", "#", "!", "\\\n", "\\\r\n", "\\\n  ", "\\u0041", "\\u00e9", "\\u", "\\u12", "\\t",
    "\\n", "\\=", "\\ ", "{", "\"", "a=b", "\n\n",
];

#[test]
fn random_texts_are_read_as_java_reads_them() {
    let texts: Vec<String> = (0..TEXTS).map(text).collect();
    let Some(expected) = java(&texts) else {
        // `eprintln` would be kept back from whoever runs a test that passes.
        writeln!(
            std::io::stderr(),
            "skipped: there is no `java` (11 or later) here"
        )
        .unwrap();
        return;
    };

    for (text, expected) in texts.iter().zip(expected) {
        let document = Document::parse(Path::new("a"), text);
        let ours = document.findings().is_empty().then(|| {
            let pairs = document.entries().iter();
            let strings = pairs.flat_map(|entry| [entry.key(), entry.value()]);
            strings.map(str::to_owned).collect::<Vec<_>>()
        });
        assert_eq!(ours, expected, "{text:?}");
    }
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
