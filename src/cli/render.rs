//! A finding as people read it, in the form of rustc's diagnostics.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin as Place, Renderer, Snippet as Shown};

use crate::diagnostic::{Finding, Origin, Severity, visible};

/// Renders `finding`, over several lines, without a line end.
pub(super) fn finding(finding: &Finding, coloured: bool) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level
        .primary_title(visible(&finding.message))
        .id(finding.code.as_str());
    let mut group = title.element(place(&finding.origin));
    if let Some(snippet) = snippet(finding) {
        group = group.element(snippet);
    }
    if let Some(help) = &finding.help {
        group = group.element(Level::HELP.message(visible(help)));
    }
    let report = [group];
    let plain = Renderer::plain()
        .decor_style(DecorStyle::Ascii)
        .render(&report);
    let styled = Renderer::styled().decor_style(DecorStyle::Ascii);
    let text = if coloured {
        styled.render(&report)
    } else {
        plain.clone()
    };
    // A line that is shortened has another column than the file's, so place and line are two
    // elements for the renderer, and it marks the second as another file with `:::`.
    let lines = text.lines().zip(plain.lines());
    let shown = lines.filter(|(_, plain)| plain.trim() != ":::");
    shown.map(|(line, _)| line).collect::<Vec<_>>().join("\n")
}

fn place(origin: &Origin) -> Place<'static> {
    match origin {
        Origin::File { path, line, column } => Place::path(visible(&path.display().to_string()))
            .line(usize::try_from(*line).unwrap_or(usize::MAX))
            .char_column(usize::try_from(*column).unwrap_or(usize::MAX)),
        other => Place::path(visible(&other.to_string())),
    }
}

/// Shows the line; its text is already short and holds no private key.
fn snippet(finding: &Finding) -> Option<Shown<'_, annotate_snippets::Annotation<'_>>> {
    let snippet = finding.snippet.as_ref()?;
    let [start, end] = [snippet.marked.start, snippet.marked.end].map(|character| {
        let place = snippet.text.char_indices().nth(character);
        place.map_or_else(|| snippet.text.len(), |(at, _)| at)
    });
    let mut annotation = AnnotationKind::Primary.span(start..end);
    if let Some(label) = &finding.label {
        annotation = annotation.label(label);
    }
    let line = usize::try_from(snippet.line).unwrap_or(usize::MAX);
    Some(
        Shown::source(&snippet.text)
            .line_start(line)
            .annotation(annotation),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::diagnostic::{Code, Public, Snippet};

    #[test]
    fn a_finding_in_a_file_looks_like_rustc() {
        let origin = Origin::File {
            path: Path::new("dpe/etc/application.properties").into(),
            line: 4,
            column: 74,
        };
        let line = r#"jwt-keys.key.content={kty":"EC",crv":"P-256"}"#;
        let found = Finding::new(Code::Cs0201, origin, "`content` is not valid JSON")
            .with_label("expected `\"` before `kty`")
            .with_help("put the quote back")
            .with_snippet(Some(Snippet::new(4, line, 22..25, &[], &Public::default())));

        let shown = finding(&found, false);

        let expected = r#"error[CS0201]: `content` is not valid JSON
 --> dpe/etc/application.properties:4:74
  |
4 | jwt-keys.key.content={kty":"EC",crv":"P-256"}
  |                       ^^^ expected `"` before `kty`
  |
  = help: put the quote back"#;
        assert_eq!(shown, expected);
        let coloured = finding(&found, true);
        let mut parts = coloured.split('\u{1b}');
        let mut uncoloured = parts.next().unwrap().to_owned();
        for part in parts {
            uncoloured += part.split_once('m').unwrap().1;
        }
        assert_eq!(uncoloured, expected);
    }

    #[test]
    fn a_finding_elsewhere_names_the_place() {
        let origin = Origin::Environment("SERVER_PORT".into());
        let shown = finding(&Finding::new(Code::Cs0306, origin, "not a port"), false);

        assert_eq!(
            shown,
            "error[CS0306]: not a port\n--> environment variable SERVER_PORT"
        );
    }
}
