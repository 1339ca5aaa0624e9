//! Lists of module names as checkpoints write them: plain names, shell wildcards and `re:` regular expressions.

use std::collections::HashSet;

use regex::Regex;

use crate::error::{Error, Result};
use crate::model::readers::fields::cut;

/// What text models hang under, in the order in which wrappers add it.
const ROOTS: [&str; 4] = ["model.language_model.", "language_model.model.", "model.", "backbone."];

/// A set of module patterns.
///
/// - A plain entry names the module, one of its ancestors, or any run of whole components inside its path: `lm_head`,
///   `gate`, `self_attn`, `model.layers.0`.
/// - An entry with `*` or `?` is a shell wildcard over the whole path of the module or of an ancestor.
/// - An entry that starts with `re:` is a regular expression that must match from the start of the path.
///
/// The root of the text model (`model.`, `language_model.model.`, ...) is left out of plain names and wildcards, since
/// checkpoints of one model disagree on it; regular expressions are tried with each root.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns {
    plain: HashSet<String>,
    globs: Vec<String>,
    regexes: Vec<Regex>,
}

impl Patterns {
    /// Adds one entry; `field` is where it stands.
    pub(super) fn add(&mut self, entry: &str, field: &str) -> Result<()> {
        if let Some(expression) = entry.strip_prefix("re:") {
            let anchored = Regex::new(&format!("^(?:{expression})")).map_err(|_| {
                Error::spec(field, cut(entry), "must be a regular expression without look-around or back-references")
            })?;
            self.regexes.push(anchored);
        } else if entry.contains(['*', '?']) {
            self.globs.push(without_root(entry).to_owned());
        } else {
            self.plain.insert(without_root(entry).to_owned());
        }
        Ok(())
    }

    /// True when there is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.globs.is_empty() && self.regexes.is_empty()
    }

    /// True when an entry matches the module `path`, written without a root: `layers.0.self_attn.q_proj`.
    pub(super) fn matches(&self, path: &str) -> bool {
        (!self.plain.is_empty() && runs(path).any(|run| self.plain.contains(run)))
            || self.globs.iter().any(|glob| glob_matches(glob, path))
            || self.regexes.iter().any(|re| ROOTS.iter().any(|root| re.is_match(&format!("{root}{path}"))))
    }
}

fn without_root(entry: &str) -> &str {
    ROOTS.iter().find_map(|root| entry.strip_prefix(root)).unwrap_or(entry)
}

/// Every run of whole dotted components of a path.
fn runs(path: &str) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(path.match_indices('.').map(|(at, _)| at + 1));
    starts.flat_map(move |start| {
        let rest = path.get(start..).unwrap_or_default();
        let ends = rest.match_indices('.').map(|(at, _)| at).chain(std::iter::once(rest.len()));
        ends.filter_map(move |end| rest.get(..end))
    })
}

/// Shell wildcard over a path or an ancestor of it: `*` is any text, dots included, and `?` is one byte.
fn glob_matches(glob: &str, path: &str) -> bool {
    let (glob, path) = (glob.as_bytes(), path.as_bytes());
    let (mut g, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (glob.get(g), path.get(p)) {
            (Some(b'*'), _) => {
                retry = Some((g + 1, p));
                g += 1;
            }
            // The wildcard is used up at the end of a component: it named an ancestor, or the module itself.
            (None, None | Some(b'.')) => return true,
            (Some(b'?'), Some(_)) => (g, p) = (g + 1, p + 1),
            (Some(a), Some(b)) if a == b => (g, p) = (g + 1, p + 1),
            // A mismatch: let the last `*` swallow one more byte.
            _ => match retry {
                Some((after_star, swallowed)) if swallowed < path.len() => {
                    retry = Some((after_star, swallowed + 1));
                    (g, p) = (after_star, swallowed + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(entry: &str, path: &str) -> bool {
        let mut patterns = Patterns::default();
        patterns.add(entry, "ignore").is_ok() && patterns.matches(path)
    }

    #[test]
    fn plain_entries_name_whole_components() {
        assert!(matches("gate", "layers.3.mlp.gate"));
        assert!(!matches("gate", "layers.3.mlp.gate_proj"));
        assert!(matches("model.layers.3", "layers.3.mlp.gate_proj"));
        assert!(!matches("model.layers.3", "layers.30.mlp.gate_proj"));
        assert!(matches("language_model.model.layers.3.mlp", "layers.3.mlp.up_proj"));
        assert!(matches("self_attn", "layers.3.self_attn.q_proj"));
        assert!(!matches("lm_head", "layers.3.self_attn.q_proj"));
    }

    #[test]
    fn wildcards_cover_paths_and_ancestors() {
        assert!(matches("model.layers.*.self_attn", "layers.12.self_attn.q_proj"));
        assert!(matches("model.layers.1.*", "layers.1.mlp.up_proj"));
        assert!(!matches("model.layers.1.*", "layers.10.mlp.up_proj"));
        assert!(matches("model.layers.5.mlp.shared_experts*", "layers.5.mlp.shared_experts.up_proj"));
        assert!(matches("*.mlp.shared_expert.*", "layers.5.mlp.shared_expert.up_proj"));
        assert!(!matches("*vision*", "layers.5.mlp.shared_expert.up_proj"));
        assert!(!matches("model.layers.*.self", "layers.12.self_attn.q_proj"));
    }

    #[test]
    fn regular_expressions_match_from_the_start() {
        assert!(matches("re:.*self_attn.*", "layers.0.self_attn.q_proj"));
        assert!(matches(r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "layers.0.mlp.up_proj"));
        assert!(!matches(r"re:.*mlp\.(gate|up|gate_up|down)_proj.*", "layers.0.mlp.experts.0.up_proj"));
        assert!(!matches("re:self_attn", "layers.0.self_attn.q_proj"));
    }
}
