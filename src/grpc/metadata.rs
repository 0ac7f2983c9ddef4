//! Header names, and the token in the headers.

use base64::engine::Engine as _;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use tonic::Status;

use super::status::reason_of;
use crate::jose::{BASE64, Compact};
use crate::token::{Reason, Refusal, is_addressed_to};
use crate::trust::{KeySet, TrustStore};

/// The caller's nonce: 22 base64url characters, fresh for each attempt.
pub const NONCE: &str = "countersign-nonce";

/// The callee's proof, in the initial metadata or the trailers of a trailers-only reply.
pub const PROOF: &str = "countersign-proof";

/// Returns the `:path` of a call, including its query.
///
/// Rules, metrics and proofs all use this text. Routers ignore the query, so a path that has one
/// never gets a rule (see `MethodRules::find`).
pub(super) fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", PathAndQuery::as_str)
}

/// Returns [`path`], to be kept.
pub(super) fn kept_path(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Returns `true` if a request is gRPC, or gRPC-Web.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| {
        matches!(rest.first(), None | Some(b'+' | b';')) || rest.starts_with(b"-web")
    })
}

/// Returns `true` if the callee proved that the refusal is its own.
///
/// True only for a status that came through an [`AttachIdentityLayer`](super::AttachIdentityLayer)
/// which asked for the proof: the layer removes every proof that it did not verify. Nothing should
/// be given up, forgotten or changed because of a refusal that is not proved: anything on the way
/// can send one.
pub fn is_proved(status: &Status) -> bool {
    status.metadata().contains_key(PROOF)
}

/// The token of a call whose `authorization` is the application's, such as an end user's.
const TOKEN: HeaderName = HeaderName::from_static("countersign-authorization");

/// Returns the name under which the token of a call is.
fn token_name(headers: &HeaderMap) -> HeaderName {
    if headers.contains_key(TOKEN) {
        TOKEN
    } else {
        AUTHORIZATION
    }
}

/// Returns `true` if a call has a token, whether or not it is valid.
pub(super) fn has_token(headers: &HeaderMap) -> bool {
    headers.contains_key(token_name(headers))
}

/// Returns the Bearer token of a call: exactly one value of `countersign-authorization` if there is
/// any, else of `authorization`; its scheme in any case.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let name = token_name(headers);
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Err(Refusal::new(
            Reason::TokenMissing,
            "no `authorization` value",
        ));
    };
    if values.next().is_some() {
        return Err(malformed(format!("more than one `{name}` value")));
    }
    let text = value.to_str().ok().and_then(|text| text.split_once(' '));
    match text {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => Ok(token),
        _ => Err(malformed(format!("`{name}` is not `Bearer <token>`"))),
    }
}

/// Adds the token in `value`. An `authorization` that is already there is the application's and
/// stays, unless a handler passed on that of its caller, which the callee could use at this module:
/// a token for this module by a key in `trust`, or by its own.
pub(super) fn attach(headers: &mut HeaderMap, value: HeaderValue, trust: &TrustStore) {
    headers.remove(TOKEN);
    let is_taken = headers.contains_key(AUTHORIZATION) && !is_passed_on(headers, &trust.current());
    headers.insert(if is_taken { TOKEN } else { AUTHORIZATION }, value);
}

fn is_passed_on(headers: &HeaderMap, trust: &KeySet) -> bool {
    let token = bearer(headers).ok();
    let Some(token) = token.and_then(|token| Compact::parse(token).ok()) else {
        return false;
    };
    let (kid, own) = (token.header().kid(), trust.own());
    if own.key_id.as_str() == kid {
        return token.verify(own.key.verifying_key());
    }
    let found = trust.find(kid);
    found.is_some_and(|found| token.verify(&found.key.key) && is_addressed_to(&token, own))
}

/// Makes the value of `authorization`. Marked sensitive, so that `Debug` and HPACK's index skip it.
pub(super) fn authorization(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Drops status details that the far side may not send: those that are no base64, at which tonic
/// would panic, and those with a reason that only a caller raises.
///
/// A status with such a reason is therefore always the verdict of this module's own layer.
pub(super) fn drop_foreign_details(headers: &mut HeaderMap) {
    let Some(details) = headers.get(Status::GRPC_STATUS_DETAILS) else {
        return;
    };
    let is_sound = BASE64.decode(details.as_bytes()).is_ok();
    let status = is_sound.then(|| Status::from_header_map(headers));
    let reason = status.flatten().and_then(|status| reason_of(&status));
    if !is_sound || reason.is_some_and(Reason::is_raised_by_caller) {
        headers.remove(Status::GRPC_STATUS_DETAILS);
    }
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(Reason::TokenMalformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::Module;
    use crate::jose::compact::{HeaderSpec, sign};
    use crate::jose::{KeyId, SigningKey};

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
    fn callers_token_that_a_handler_passes_on_is_replaced_and_others_stay() {
        let pair = crate::testing::pair();
        let trust = pair.dpm.trust();
        let callee = pair.dpe.trust().current();
        let issued = pair
            .dpe
            .issuer()
            .issue(callee.deployment("dpm-dev").unwrap());
        let passed_on = authorization(issued.unwrap().expose()).unwrap();
        let own = HeaderValue::from_static("Bearer own");
        let none = HeaderValue::from_static("Bearer eyJhbGciOiJub25lIn0.e30.");
        // Another issuer has a key of that name, and a deployment may act as a user elsewhere.
        let own_key = |module: &Module| module.trust().own();
        let user_of = |name: &KeyId, key: &SigningKey, audience: &str| {
            let claims = format!(
                r#"{{"iss":"a","sub":"a","aud":["{audience}"],"iat":1,"exp":2,"jti":"x"}}"#
            );
            let header = HeaderSpec {
                typ: "JWT",
                kid: name,
            };
            authorization(&sign(&header, claims.as_bytes(), key).unwrap()).unwrap()
        };
        let peer = own_key(&pair.dpe);
        let foreign = user_of(&peer.key_id, &SigningKey::generate().unwrap(), "dpm-dev");
        let elsewhere = user_of(&peer.key_id, &peer.key, "ledger-dev");

        for (before, stays) in [
            (passed_on, false),
            (none, true),
            (foreign, true),
            (elsewhere, true),
        ] {
            let mut headers = HeaderMap::from_iter([(AUTHORIZATION, before.clone())]);
            attach(&mut headers, own.clone(), trust);
            let expected = if stays { &before } else { &own };
            assert_eq!(headers.get(AUTHORIZATION), Some(expected));
            assert_eq!(headers.contains_key(TOKEN), stays);
        }
    }

    #[test]
    fn content_type_that_only_begins_like_grpc_is_not_grpc() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web-text", true),
            ("application/grpcish", false),
            ("text/html", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
    }

    #[test]
    fn status_details_that_would_panic_tonic_are_dropped() {
        for (details, kept) in [
            ("", true),
            ("CAcSAm5v", true),
            ("CAc=", true),
            ("CAc", true),
            ("!", false),
            ("CAc==", false),
            ("CAd", false),
            ("CA c", false),
            ("CA-_", false),
        ] {
            let name = Status::GRPC_STATUS_DETAILS;
            let status = (Status::GRPC_STATUS, HeaderValue::from_static("7"));
            let details = (name.clone(), HeaderValue::from_static(details));
            let mut headers = HeaderMap::from_iter([status, details.clone()]);

            drop_foreign_details(&mut headers);

            assert_eq!(headers.contains_key(name), kept, "{details:?}");
            assert!(Status::from_header_map(&headers).is_some());
        }
    }

    #[test]
    fn token_is_not_shown_by_debug() {
        let value = authorization("a.b.c").unwrap();

        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn reason_that_only_a_caller_raises_is_dropped() {
        for reason in Reason::ALL {
            let reply = crate::grpc::refuse(*reason, Some("why")).into_http::<()>();
            let mut headers = reply.headers().clone();

            drop_foreign_details(&mut headers);

            let is_kept = headers.contains_key(Status::GRPC_STATUS_DETAILS);
            assert_eq!(is_kept, !reason.is_raised_by_caller(), "{reason}");
        }
    }
}
