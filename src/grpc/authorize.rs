//! Which method asks for what. A method without a rule is not served.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::identity::{Role, ServiceIdentity};
use crate::token::{Reason, Refusal};

/// What a method asks of its caller.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub(super) everyone: bool,
    role: Option<Role>,
    pub(super) own_module: bool,
}

impl Rule {
    /// Everyone may call, without a token. For health checks.
    pub fn everyone() -> Self {
        Self {
            everyone: true,
            ..Self::any_identity()
        }
    }

    /// Any trusted deployment may call.
    pub fn any_identity() -> Self {
        Self {
            everyone: false,
            role: None,
            own_module: false,
        }
    }

    /// A trusted deployment with `role` may call.
    pub fn role(role: Role) -> Self {
        Self {
            role: Some(role),
            ..Self::any_identity()
        }
    }

    /// Also the module itself may call, over loopback, with a token that it issued to itself.
    #[must_use]
    pub fn or_own_module(self) -> Self {
        Self {
            own_module: true,
            ..self
        }
    }

    pub(super) fn check(&self, identity: &ServiceIdentity) -> Result<(), Refusal> {
        match &self.role {
            Some(role) if !identity.roles().contains(role) => {
                let detail = format!("{identity} lacks the role `{role}`");
                Err(Refusal::new(Reason::RoleMissing, detail))
            }
            _ => Ok(()),
        }
    }
}

/// The rules of a server: default deny.
///
/// A rule names a method, `/package.Service/Method`, or all methods of a service,
/// `/package.Service/*`; the method's own rule wins. To a verified caller a method without a rule
/// answers `UNIMPLEMENTED`, as if it were not served; to anyone else `UNAUTHENTICATED`.
#[derive(Debug, Default)]
pub struct MethodRules {
    methods: HashMap<String, Rule>,
    services: HashMap<String, Rule>,
    missing: Mutex<HashSet<String>>,
}

/// How many methods without a rule are remembered as logged.
const MAX_REMEMBERED: usize = 256;

impl MethodRules {
    /// Starts with no rule: nothing may be called.
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// Adds the rule for `path`.
    #[must_use]
    pub fn allow(mut self, path: &str, rule: Rule) -> Self {
        match path.strip_suffix("/*") {
            Some(service) => self.services.insert(service.to_owned(), rule),
            None => self.methods.insert(path.to_owned(), rule),
        };
        self
    }

    /// Returns the rule for `path`, the whole `:path` of a call.
    ///
    /// A path with a query has no rule: routers ignore the query, so a service's rule must not
    /// replace the rule of the method that they would call.
    pub(super) fn find(&self, path: &str) -> Option<&Rule> {
        if path.contains('?') {
            return None;
        }
        self.methods.get(path).or_else(|| {
            let (service, _) = path.rsplit_once('/')?;
            self.services.get(service)
        })
    }

    /// Returns the services that have rules.
    pub(crate) fn services(&self) -> Vec<String> {
        let methods = self.methods.keys().filter_map(|path| path.rsplit_once('/'));
        let all = methods
            .map(|(service, _)| service)
            .chain(self.services.keys().map(String::as_str));
        let named = all.map(|service| service.trim_start_matches('/').to_owned());
        named.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Adds the rules of `other`.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.methods.extend(other.methods);
        self.services.extend(other.services);
        self
    }

    /// Returns the methods that have a rule of their own.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    /// Returns `true` once for each path, so that its missing rule is logged once.
    pub(super) fn is_first_miss(&self, path: &str) -> bool {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.len() < MAX_REMEMBERED && missing.insert(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ModuleType, Roles};

    #[test]
    fn method_rule_wins_over_its_services() {
        let role = Role::new("ADMIN").unwrap();
        let rules = MethodRules::deny_all()
            .allow("/a.B/*", Rule::any_identity())
            .allow("/a.B/Delete", Rule::role(role.clone()));

        assert_eq!(rules.find("/a.B/Get"), Some(&Rule::any_identity()));
        assert_eq!(rules.find("/a.B/Delete"), Some(&Rule::role(role)));
    }

    #[test]
    fn near_miss_of_a_path_finds_no_rule() {
        let rules = MethodRules::deny_all().allow("/a.B/Get", Rule::everyone());

        for path in [
            "/a.B/get",
            "//a.B/Get",
            "/a.B/Get/",
            "/a.B/../a.B/Get",
            "/a.B/%47et",
            "*",
            "",
        ] {
            assert_eq!(rules.find(path), None, "{path}");
        }
    }

    #[test]
    fn path_with_a_query_has_no_rule_of_its_service() {
        let rules = MethodRules::deny_all()
            .allow("/a.B/*", Rule::everyone())
            .allow("/a.B/Get", Rule::any_identity());

        for path in ["/a.B/Get?", "/a.B/Get?x", "/a.B/?Get", "/a.B/Get?/../Get"] {
            assert_eq!(rules.find(path), None, "{path}");
        }
    }

    #[test]
    fn missing_rule_is_logged_once() {
        let rules = MethodRules::deny_all();

        assert!(rules.is_first_miss("/a.B/Get"));
        assert!(!rules.is_first_miss("/a.B/Get"));
    }

    #[test]
    fn role_is_compared_without_case() {
        let rule = Rule::role(Role::new("IMPERSONATION").unwrap());
        let module = ModuleType::new("dpe").unwrap();
        let lower = Roles::from_iter([Role::new("impersonation").unwrap()]);

        assert!(
            rule.check(&ServiceIdentity::new(module.clone(), "dpe-dev", lower))
                .is_ok()
        );
        let none = ServiceIdentity::new(module, "dpe-dev", Roles::default());
        assert_eq!(rule.check(&none).unwrap_err().reason, Reason::RoleMissing);
    }
}
