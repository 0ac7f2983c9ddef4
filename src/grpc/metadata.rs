//! Header names, and the token in the headers.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};

use crate::token::{Reason, Refusal};

/// The caller's nonce: 22 base64url characters, fresh for each attempt.
pub const NONCE: &str = "countersign-nonce";

/// The callee's proof, in the initial metadata or the trailers of a trailers-only reply.
pub const PROOF: &str = "countersign-proof";

/// Returns the Bearer token of a call: exactly one `authorization` value, its scheme in any case.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Refusal::new(
            Reason::TokenMissing,
            "no `authorization` value",
        ));
    };
    if values.next().is_some() {
        return Err(malformed("more than one `authorization` value"));
    }
    let text = value.to_str().ok().and_then(|text| text.split_once(' '));
    match text {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => Ok(token),
        _ => Err(malformed("`authorization` is not `Bearer <token>`")),
    }
}

/// Makes the value of `authorization`. Marked sensitive, so that `Debug` and HPACK's index skip it.
pub(super) fn authorization(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Reason::TokenMalformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values
            .iter()
            .map(|v| (AUTHORIZATION, HeaderValue::from_str(v).unwrap()));
        values.collect()
    }

    #[test]
    fn scheme_is_read_in_any_case() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c"] {
            assert_eq!(bearer(&headers(&[value])).unwrap(), "a.b.c");
        }
    }

    #[test]
    fn no_value_is_missing_and_any_other_form_is_malformed() {
        assert_eq!(
            bearer(&headers(&[])).unwrap_err().reason,
            Reason::TokenMissing
        );
        let malformed: &[&[&str]] = &[
            &[""],
            &["Bearer"],
            &["a.b.c"],
            &["Basic a.b.c"],
            &["Bearer: a.b.c"],
            &["Bearera.b.c"],
            &["\"Bearer a.b.c\""],
            &["Bearer a.b.c", "Bearer a.b.c"],
            &["Bearer a.b.c", ""],
        ];
        for values in malformed {
            let reason = bearer(&headers(values)).unwrap_err().reason;
            assert_eq!(reason, Reason::TokenMalformed, "{values:?}");
        }
    }

    #[test]
    fn token_is_not_shown_by_debug() {
        let value = authorization("a.b.c").unwrap();

        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
