//! Access to the fields of a `config.json`: every value is checked where it is read, and every refusal carries the
//! field's dotted path, its value and the rule.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Most layers a config may declare. Far above any published model; it bounds the work of reading one.
pub(super) const MAX_LAYERS: u64 = 10_000;
/// Widest hidden, intermediate or latent size. Two such widths multiply to 2^48, which leaves room for the factors
/// that the model module multiplies in without a check.
pub(super) const MAX_WIDTH: u64 = 1 << 24;
/// Most heads, and widest head: their product stays below 2^32.
pub(super) const MAX_HEADS: u64 = 1 << 16;
/// Most experts of one layer.
pub(super) const MAX_EXPERTS: u64 = 1 << 16;
/// Most rows of an embedding.
pub(super) const MAX_VOCAB: u64 = 1 << 28;
/// Longest context or window.
pub(super) const MAX_TOKENS: u64 = 1 << 40;

/// Characters of an offending value that an error repeats.
const SHOWN_CHARACTERS: usize = 80;

/// One JSON object of a config with the dotted path that leads to it.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    /// What the class assumes for integers that are not written.
    defaults: &'static [(&'static str, u64)],
}

impl<'a> Fields<'a> {
    /// The top of a file; `path` is empty where fields are named from the top.
    pub(super) fn new(object: &'a Map<String, Value>, path: &str) -> Self {
        Self { object, path: path.to_owned(), defaults: &[] }
    }

    /// The same fields, with what the class assumes for integers that are not written.
    pub(super) fn with_defaults(self, defaults: &'static [(&'static str, u64)]) -> Self {
        Self { defaults, ..self }
    }

    /// Dotted path of one of its fields.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value of a field; `null` counts as absent, as it does for the libraries that write these files.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// True when the field is written, even as `null`.
    pub(super) fn mentions(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// An error about one of its fields, value included.
    pub(super) fn refuse(&self, key: &str, rule: impl Into<String>) -> Error {
        let value = self.value(key).map_or_else(|| "missing".to_owned(), shown);
        Error::spec(self.path_of(key), value, rule)
    }

    /// A value that is well formed but that no law here covers.
    pub(super) fn unsupported(&self, key: &str, rule: impl Into<String>) -> Error {
        let value = self.value(key).map_or_else(|| "missing".to_owned(), shown);
        Error::unsupported(self.path_of(key), value, rule)
    }

    /// An integer from 1 to `max`, if the field is there.
    pub(super) fn optional_count(&self, key: &str, max: u64) -> Result<Option<u64>> {
        self.integer(key, 1, max)
    }

    /// An integer from 1 to `max`, or `default`.
    pub(super) fn count_or(&self, key: &str, max: u64, default: u64) -> Result<u64> {
        Ok(self.integer(key, 1, max)?.unwrap_or(default))
    }

    /// An integer from 0 to `max`, or `default`.
    pub(super) fn whole_or(&self, key: &str, max: u64, default: u64) -> Result<u64> {
        Ok(self.integer(key, 0, max)?.unwrap_or(default))
    }

    /// An integer from 1 to `max` that must be given.
    pub(super) fn count(&self, key: &str, max: u64) -> Result<u64> {
        self.count_any(&[key], max)
    }

    /// As [`Self::count`], under the first of several spellings that is there.
    pub(super) fn count_any(&self, keys: &[&str], max: u64) -> Result<u64> {
        for key in keys {
            if let Some(count) = self.integer(key, 1, max)? {
                return Ok(count);
            }
        }
        let name = keys.first().copied().unwrap_or("config");
        Err(self.refuse(name, format!("must be given, an integer from 1 to {max}")))
    }

    /// As [`Self::count_any`], or `default`.
    pub(super) fn count_any_or(&self, keys: &[&str], max: u64, default: u64) -> Result<u64> {
        match keys.iter().find(|key| self.value(key).is_some()) {
            Some(key) => self.count(key, max),
            None => Ok(default),
        }
    }

    fn integer(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let Some(value) = self.value(key) else {
            let default = self.defaults.iter().find(|(name, _)| *name == key && !self.mentions(key));
            return Ok(default.map(|(_, value)| *value));
        };
        value
            .as_u64()
            .filter(|count| (min..=max).contains(count))
            .map(Some)
            .ok_or_else(|| self.refuse(key, format!("must be an integer from {min} to {max}")))
    }

    /// A boolean, or `default`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    /// A boolean, if the field is there.
    pub(super) fn optional_flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.refuse(key, "must be true or false"))
    }

    /// A string, if the field is there.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.refuse(key, "must be a string"))
    }

    /// A nested object, if the field is there.
    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let object = value.as_object().ok_or_else(|| self.refuse(key, "must be an object"))?;
        Ok(Some(Fields { object, path: self.path_of(key), defaults: &[] }))
    }

    /// The entries of an object, if the field is there, each an object itself.
    pub(super) fn objects(&self) -> Result<Vec<(&'a str, Fields<'a>)>> {
        let mut out = Vec::with_capacity(self.object.len());
        for key in self.object.keys() {
            let fields = self.object(key)?.ok_or_else(|| self.refuse(key, "must be an object"))?;
            out.push((key.as_str(), fields));
        }
        Ok(out)
    }

    /// A list, if the field is there.
    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_array().map(|list| Some(list.as_slice())).ok_or_else(|| self.refuse(key, "must be a list"))
    }

    /// A list of strings, if the field is there.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.iter()
            .enumerate()
            .map(|(index, entry)| {
                entry.as_str().ok_or_else(|| {
                    Error::spec(format!("{}[{index}]", self.path_of(key)), shown(entry), "must be a string")
                })
            })
            .collect::<Result<Vec<_>>>()
            .map(Some)
    }

    /// A list of integers from `min` to `max`, if the field is there.
    pub(super) fn counts(&self, key: &str, min: u64, max: u64) -> Result<Option<Vec<u64>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.iter()
            .enumerate()
            .map(|(index, entry)| {
                entry.as_u64().filter(|count| (min..=max).contains(count)).ok_or_else(|| {
                    let field = format!("{}[{index}]", self.path_of(key));
                    Error::spec(field, shown(entry), format!("must be an integer from {min} to {max}"))
                })
            })
            .collect::<Result<Vec<_>>>()
            .map(Some)
    }

    /// One integer from 1 to `max` for each of `num_layers` layers: the field is one number or a list with one for each.
    pub(super) fn count_per_layer(&self, key: &str, max: u64, num_layers: u64) -> Result<Option<Vec<u64>>> {
        if self.value(key).is_some_and(Value::is_array) {
            let counts = self.counts(key, 1, max)?.unwrap_or_default();
            self.check_length(key, counts.len(), num_layers)?;
            return Ok(Some(counts));
        }
        let count = self.optional_count(key, max)?;
        Ok(count.map(|count| (0..num_layers).map(|_| count).collect()))
    }

    /// Refuses a per-layer list of another length than `num_layers`.
    pub(super) fn check_length(&self, key: &str, length: usize, num_layers: u64) -> Result<()> {
        if length as u64 == num_layers {
            return Ok(());
        }
        let rule = format!("must have one entry for each of the {num_layers} layers");
        Err(Error::spec(self.path_of(key), format!("list of {length}"), rule))
    }
}

/// A JSON value as an error shows it, cut where it is long.
pub(super) fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

/// A text as an error shows it, cut where it is long.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
