//! What the backslashes of keys and values stand for.

use zeroize::Zeroizing;

use super::super::entry::{Escapes, Span};

/// A place where the text does not follow the grammar, and what is wrong there.
pub type SyntaxFault = (Span, &'static str);

/// Java refuses the file.
const MALFORMED_ESCAPE: &str = "`\\u` is not followed by four hexadecimal digits";
/// Java keeps it; it is no text.
const LONE_SURROGATE: &str = "this is half of a surrogate pair, which is not a valid character";

/// A character of a logical line and where it stands.
pub(super) type Placed = (usize, char);

pub(super) fn after((at, character): &Placed) -> usize {
    at.saturating_add(character.len_utf8())
}

#[derive(Default)]
pub(super) struct Unescaped {
    pub(super) text: Zeroizing<String>,
    pub(super) steps: Vec<(usize, usize)>,
    pub(super) escapes: Escapes,
    /// Where the next unescaped character would stand without a step.
    expected: usize,
}

impl Unescaped {
    fn push(&mut self, character: char, at: usize, end: usize) {
        if at != self.expected || self.steps.is_empty() {
            self.steps.push((self.text.len(), at));
        }
        self.text.push(character);
        // An escape is longer than its character: the next one starts a step of its own.
        self.expected = if end.saturating_sub(at) == character.len_utf8() {
            end
        } else {
            usize::MAX
        };
    }
}

pub(super) fn unescape(part: &[Placed], faults: &mut Vec<SyntaxFault>) -> Unescaped {
    let bytes = part.iter().map(|(_, c)| c.len_utf8()).sum();
    let mut out = Unescaped {
        text: Zeroizing::new(String::with_capacity(bytes)),
        ..Unescaped::default()
    };
    let mut rest = part;
    let mut end = part.first().map_or(0, |(at, _)| *at);
    while let [first, tail @ ..] = rest {
        out.escapes.continued |= first.0 != end;
        end = after(first);
        rest = tail;
        let (at, character) = *first;
        if character != '\\' {
            out.push(character, at, end);
            continue;
        }
        let [second, tail @ ..] = tail else { break };
        out.escapes.continued |= second.0 != end;
        end = after(second);
        rest = tail;
        match second.1 {
            'u' => {
                let (taken, read) = unicode(rest, Span { start: at, end });
                let (digits, tail) = rest.split_at(taken);
                end = digits.last().map_or(end, after);
                rest = tail;
                match read {
                    Ok(character) => out.push(character, at, end),
                    Err(fault) => {
                        faults.push(fault);
                        for placed in [first, second].into_iter().chain(digits) {
                            out.push(placed.1, placed.0, after(placed));
                        }
                    }
                }
            }
            letter => {
                let character = control(letter);
                out.escapes.control |= character != letter;
                out.push(character, at, end);
            }
        }
    }
    out
}

fn control(letter: char) -> char {
    match letter {
        't' => '\t',
        'n' => '\n',
        'r' => '\r',
        'f' => '\u{c}',
        other => other,
    }
}

/// Reads what follows `\u`, the second half of a surrogate pair included: how many characters that
/// takes, and what they are.
fn unicode(rest: &[Placed], escape: Span) -> (usize, Result<char, SyntaxFault>) {
    let Some(unit) = hex4(rest) else {
        let end = rest
            .iter()
            .take(4)
            .take_while(|(_, c)| c.is_ascii_hexdigit())
            .last()
            .map_or(escape.end, after);
        let span = Span { end, ..escape };
        return (0, Err((span, MALFORMED_ESCAPE)));
    };
    if let Some(character) = char::from_u32(unit) {
        return (4, Ok(character));
    }
    let second = match rest.get(4..) {
        Some([(_, '\\'), (_, 'u'), tail @ ..]) => hex4(tail),
        _ => None,
    };
    let pair = second.and_then(|low| {
        let units = [u16::try_from(unit).ok()?, u16::try_from(low).ok()?];
        char::decode_utf16(units).next()?.ok()
    });
    if let Some(character) = pair {
        return (10, Ok(character));
    }
    let end = rest.get(3).map_or(escape.end, after);
    (4, Err((Span { end, ..escape }, LONE_SURROGATE)))
}

fn hex4(rest: &[Placed]) -> Option<u32> {
    rest.get(..4)?.iter().try_fold(0_u32, |unit, (_, digit)| {
        Some(unit.wrapping_mul(16).wrapping_add(digit.to_digit(16)?))
    })
}
