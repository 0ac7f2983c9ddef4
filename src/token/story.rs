//! What stands behind each reason, for `countersign explain`: the rule, and what usually breaks it.

use super::Reason;

/// Why somebody may meet a [`Reason`].
#[derive(Clone, Copy, Debug)]
pub struct Story {
    /// The rule that did not hold.
    pub rule: &'static str,
    /// What usually is behind it, the most frequent first.
    pub causes: &'static [&'static str],
}

impl Reason {
    /// Returns the rule and the usual causes.
    pub fn story(self) -> Story {
        self.of_form()
            .or_else(|| self.of_key())
            .or_else(|| self.of_claims())
            .unwrap_or_else(|| self.of_use())
    }

    fn of_form(self) -> Option<Story> {
        Some(match self {
            Self::TokenMissing => Story {
                rule: "Every method except grpc.health.v1 and reflection needs one `authorization` value.",
                causes: &[
                    "the client was made without the countersign layer",
                    "a proxy between the two drops the `authorization` header",
                ],
            },
            Self::TokenMalformed => Story {
                rule: "Size, three canonical base64url parts, strict JSON, `typ`, `kid`, and every required claim of its type.",
                causes: &[
                    "another product's token was sent, such as that of a signed-in user",
                    "two `authorization` values: the client's own and one that a proxy added",
                    "the token was cut or wrapped when it was copied",
                ],
            },
            Self::AlgorithmNotAllowed => Story {
                rule: "The header's `alg` is the string `ES256`.",
                causes: &[
                    "a token of an identity provider (RS256) was sent in place of the module's own",
                    "somebody tries `none` or HS256",
                ],
            },
            _ => return None,
        })
    }

    fn of_key(self) -> Option<Story> {
        Some(match self {
            Self::KeyUnknown => Story {
                rule: "The header's `kid` equals, byte for byte, a `jwt-keys.*.fingerprint` of the callee's file.",
                causes: &[
                    "the two modules were never paired, or with other files than they run on",
                    "the caller has a new key and the callee's file does not have it yet",
                    "the caller calls a DPM of another environment",
                ],
            },
            Self::SignatureInvalid => Story {
                rule: "The 64-byte signature verifies with the key that `kid` selects.",
                causes: &[
                    "the caller's key was replaced and keeps the old `kid`",
                    "`content` and `fingerprint` in the callee's file belong to two keys; `check` says so",
                    "something between the two changed the token",
                ],
            },
            Self::KeyRevoked => Story {
                rule: "The key that signed has no `is-revoked=true` in the callee's file.",
                causes: &[
                    "a rotation ended, and this caller still runs on its old key",
                    "the key was revoked on purpose: its holder may not be who it was made for",
                ],
            },
            _ => return None,
        })
    }

    fn of_claims(self) -> Option<Story> {
        Some(match self {
            Self::TokenExpired => Story {
                rule: "`exp` is after `iat`, and the callee's clock is before `exp` plus the leeway.",
                causes: &[
                    "the caller's clock is behind: `countersign doctor` measures by how much",
                    "a token was kept and sent again after its time",
                ],
            },
            Self::TokenNotYetValid => Story {
                rule: "`iat`, and `nbf` where there is one, are not ahead of the callee's clock by more than the leeway.",
                causes: &["the caller's clock is ahead: `countersign doctor` measures by how much"],
            },
            Self::TokenLifetimeTooLong => Story {
                rule: "`exp` minus `iat` is at most `countersign.token.max-lifetime` of the callee.",
                causes: &["the caller's `token-expiration` is over what this callee accepts"],
            },
            Self::IssuerMismatch => Story {
                rule: "`iss` and `sub` are both the name of the deployment that owns the key, or both the token's `kid`.",
                causes: &[
                    "the caller calls itself by another name than the callee's file does",
                    "with TLS: the connection's certificate belongs to another deployment than the token",
                ],
            },
            Self::AudienceMismatch => Story {
                rule: "One `aud` value is the fingerprint of the callee's own key; its name counts where no value is a fingerprint.",
                causes: &[
                    "the caller's file holds an old key of this callee",
                    "the caller dialled another module than it meant, or a proxy routed it there",
                ],
            },
            Self::TokenReplayed => Story {
                rule: "With `countersign.token.replay=strict` each `jti` is taken once.",
                causes: &[
                    "the caller reuses its token: `single-use-tokens` is not set there",
                    "the callee has just started and refuses every token for the leeway",
                    "somebody replays a token that was read on the way",
                ],
            },
            _ => return None,
        })
    }

    fn of_use(self) -> Story {
        match self {
            Self::RoleMissing => Story {
                rule: "The caller's deployment has, in the callee's file, the role that the method asks for.",
                causes: &[
                    "`security.roles[0]` is missing in the callee's file, or holds another role",
                    "the callee asks for another role: `….internal.jwt.impersonation-role`",
                ],
            },
            Self::EngineNotOwned => Story {
                rule: "An engine is changed only by the deployment that registered it first.",
                causes: &["a storage folder was copied together with its `engine-id`"],
            },
            Self::AddressNotAllowed => Story {
                rule: "The advertised address resolves to nothing in a refused range, and is among `allowed-addresses` where those are set.",
                causes: &[
                    "the engine advertises `localhost` to a DPM on another machine",
                    "its port is under 1024, or its network is not listed at the DPM",
                ],
            },
            Self::ProofMissing => Story {
                rule: "Where the caller asked for it, the reply carries one `countersign-proof`. Raised by the caller itself.",
                causes: &[
                    "another program listens at that address",
                    "a proxy between the two drops the header",
                ],
            },
            _ => Story {
                rule: "The proof is signed by an active key of the deployment that was meant, for this nonce, token, method and time. Raised by the caller itself.",
                causes: &[
                    "another module listens at that address",
                    "the callee's key in the caller's file is out of date",
                    "the clocks differ by more than the leeway: `countersign doctor` tells",
                ],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_rule_of_its_own_and_a_cause() {
        let mut rules = Vec::new();
        for reason in Reason::ALL {
            let story = reason.story();
            assert!(!story.causes.is_empty(), "{reason}");
            assert!(!rules.contains(&story.rule), "{reason}");
            rules.push(story.rule);
        }
    }
}
