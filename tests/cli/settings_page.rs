//! The page of the settings: its tables are made of the schema that the program reads.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Returns what a setting takes, in words.
fn takes(words: &[&str]) -> String {
    match words {
        ["switch"] => "`true`, `false`".to_owned(),
        ["integer", least, most] => format!("{least} to {most}"),
        ["seconds", least, most] => format!("{least} s to {most} s"),
        ["millis", least, most] => format!("{least} ms to {most} ms"),
        ["size"] => "bytes, `KB`, `MB`".to_owned(),
        ["public-key"] => "a public JWK".to_owned(),
        ["private-key"] => "base64 of a private JWK".to_owned(),
        ["password"] => "text, never shown".to_owned(),
        [kind @ ("text" | "list")] => (*kind).to_owned(),
        [words] => format!("`{}`", words.replace('|', "`, `")),
        other => panic!("the page has no words for {other:?}"),
    }
}

/// Returns the table of the settings with an effect.
fn effective(schema: &str) -> String {
    let mut table = "| setting | takes | default | what it is |\n|---|---|---|---|\n".to_owned();
    let mut what = "";
    for line in schema.lines().skip_while(|line| !line.is_empty()) {
        if let Some(comment) = line.strip_prefix("# ") {
            what = comment;
        } else if !line.is_empty() {
            let (setting, default) = line.split_once(" = ").unwrap_or((line, ""));
            let words: Vec<_> = setting.split(' ').collect();
            let takes = takes(&words[1..]);
            let default = match default.split_once(' ') {
                Some((dpm, dpe)) => format!("DPM {dpm}, DPE {dpe}"),
                None => default.to_owned(),
            };
            let _ = writeln!(table, "| `{}` | {takes} | {default} | {what} |", words[0]);
        }
    }
    table
}

/// Returns where `<tls>` may stand, and the prefixes that a reload applies: texts of a constant.
fn constant(code: &str, name: &str) -> String {
    let (_, rest) = code.split_once(&format!("const {name}: ")).unwrap();
    let (_, value) = rest.split_once('=').unwrap();
    let texts = value
        .split(';')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2);
    let texts = texts.map(|text| format!("`{}`", text.trim_end_matches('.')));
    texts.collect::<Vec<_>>().join(", ")
}

/// Returns the settings without an effect, below why they have none.
fn recognised(schema: &str) -> String {
    let mut lists: Vec<(&str, Vec<String>)> = Vec::new();
    for line in schema.lines() {
        match line.strip_prefix("    ") {
            Some(name) => lists.last_mut().unwrap().1.push(format!("`{name}`")),
            None => lists.push((line, Vec::new())),
        }
    }
    let lines = lists
        .iter()
        .map(|(why, names)| format!("- {why}: {}\n", names.join(", ")));
    lines.collect()
}

#[test]
fn page_of_the_settings_is_made_of_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let schema = read("src/config/schema.rs");
    let rows = read("src/config/schema/rows.rs");
    let tls = format!(
        "\n`<tls>` is one of {}; for all connections of a client, the last two.\n",
        [constant(&rows, "SERVER"), constant(&rows, "CLIENT")].join(", ")
    );
    let parts = [
        (
            "src/config/schema/settings.txt",
            effective(&read("src/config/schema/settings.txt")) + &tls,
        ),
        (
            "src/config/schema.rs",
            format!("Those that start with {}.\n", constant(&schema, "HOT")),
        ),
        (
            "src/config/schema/recognised.txt",
            recognised(&read("src/config/schema/recognised.txt")),
        ),
    ];
    let page = read("docs/settings.md");
    let mut made = page.clone();
    for (source, part) in parts {
        let start = format!("<!-- generated from {source} -->\n");
        let (before, rest) = made.split_once(&start).unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        made = format!("{before}{start}\n{part}\n<!-- end -->{after}");
    }

    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        fs::write(root.join("docs/settings.md"), &made).unwrap();
    } else {
        assert_eq!(page, made, "INSTA_UPDATE=always writes it");
    }
}
