//! Typed reading of a JSON table in which every refusal names the field by its dotted path.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// Longest piece of a user's value that an error repeats.
const SHOWN_CHARS: usize = 80;

/// Numbers a field accepts, both ends included, and their unit for the error message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) unit: &'static str,
}

impl Limits {
    pub(super) const fn new(min: f64, max: f64, unit: &'static str) -> Self {
        Self { min, max, unit }
    }

    fn rule(&self, kind: &str) -> String {
        let separator = if self.unit.is_empty() { "" } else { " " };
        format!("must be {kind} from {} to {}{separator}{}", plain(self.min), plain(self.max), self.unit)
    }

    fn hold(&self, number: f64) -> bool {
        // Written so that a NaN, which no comparison accepts, is refused.
        number >= self.min && number <= self.max
    }
}

/// A limit as people write it: `2` rather than `2.0`, `1e18` rather than nineteen digits.
fn plain(number: f64) -> String {
    if number != 0.0 && !(1e-3..1e7).contains(&number) { format!("{number:e}") } else { format!("{number}") }
}

/// A JSON object with the dotted path that leads to it.
pub(super) struct Table<'a> {
    path: String,
    entries: &'a Map<String, Value>,
}

impl<'a> Table<'a> {
    /// Takes `value` as a table that may hold no keys but `known`.
    pub(super) fn open(path: &str, value: &'a Value, known: &[&str]) -> Result<Self> {
        let Value::Object(entries) = value else {
            let field = if path.is_empty() { "accelerator" } else { path };
            return Err(Error::spec(field, shown(value), "must be a table (a JSON object)"));
        };
        let table = Self { path: path.to_owned(), entries };
        match entries.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(table),
            Some((key, value)) => Err(Error::spec(table.field(key), shown(value), unknown_rule(key, known))),
        }
    }

    /// Dotted path of one of the table's keys; a key that is no plain name stands in quotes.
    pub(super) fn field(&self, key: &str) -> String {
        let is_name = |c: char| c.is_alphanumeric() || "_-.*".contains(c);
        let key = if !key.is_empty() && key.chars().all(is_name) { clipped(key) } else { shown(&Value::from(key)) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// The value under `key`; a null counts as absent.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    /// A finite number within the limits, or `None` where the key is absent.
    pub(super) fn number(&self, key: &str, limits: Limits) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64().filter(|number| limits.hold(*number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::spec(self.field(key), shown(value), limits.rule("a number"))),
        }
    }

    /// A whole number within the limits, or `None` where the key is absent. `80e9` is one, `80.5` is not.
    pub(super) fn integer(&self, key: &str, limits: Limits) -> Result<Option<u64>> {
        self.value(key).map(|value| whole_number(&self.field(key), value, limits)).transpose()
    }

    /// A string that is more than blanks, or `None` where the key is absent.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        self.value(key).map(|value| text(&self.field(key), value)).transpose()
    }

    /// The items of a list with their paths (`prices[0]`); empty where the key is absent.
    pub(super) fn list(&self, key: &str) -> Result<Vec<(String, &'a Value)>> {
        let field = self.field(key);
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                Ok(items.iter().enumerate().map(|(index, item)| (format!("{field}[{index}]"), item)).collect())
            }
            Some(value) => Err(Error::spec(field, shown(value), "must be a list")),
        }
    }

    /// The value a reader found, or the error that `key` is missing.
    pub(super) fn required<T>(&self, key: &str, found: Option<T>, what: &str) -> Result<T> {
        found.ok_or_else(|| Error::spec(self.field(key), "missing", format!("is required: {what}")))
    }
}

/// A string that is more than blanks.
pub(super) fn text(field: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) if text.trim().is_empty() => Err(Error::spec(field, shown(value), "must not be empty")),
        Value::String(text) => Ok(text.clone()),
        _ => Err(Error::spec(field, shown(value), "must be a string")),
    }
}

/// A whole number within the limits.
pub(super) fn whole_number(field: &str, value: &Value, limits: Limits) -> Result<u64> {
    whole(value)
        .filter(|number| limits.hold(*number as f64))
        .ok_or_else(|| Error::spec(field, shown(value), limits.rule("a whole number")))
}

fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: beyond it a float no longer names one integer
    if let Some(number) = value.as_u64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range and integral, checked here
    ((0.0..=EXACT).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

/// A value as the user wrote it, cut to a length an error can carry.
pub(super) fn shown(value: &Value) -> String {
    clipped(&value.to_string())
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
    }
}

fn unknown_rule(key: &str, known: &[&str]) -> String {
    // A name that holds the other (`bandwidth`, `bandwidth_bytes_per_s`) is nearer than any edit distance says.
    let nearest = known.iter().min_by_key(|candidate| {
        let holds = candidate.contains(key) || key.contains(**candidate);
        (!holds, edit_distance(key, candidate))
    });
    match nearest {
        Some(nearest) => format!("unknown field; the nearest known one is {nearest} (known: {})", known.join(", ")),
        None => "unknown field".to_owned(),
    }
}

/// Levenshtein distance in characters. The key is cut first, so that a hostile one costs nothing.
fn edit_distance(key: &str, candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().collect();
    let mut row: Vec<usize> = (0..=candidate.len()).collect();
    for (i, a) in key.chars().take(SHOWN_CHARS).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&candidate) {
            let best = (diagonal + usize::from(a != *b)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// Parses JSON text; a key that stands twice in one table is an error, because one of its values would be lost.
pub(super) fn parse(text: &str, max_bytes: usize) -> Result<Value> {
    if text.len() > max_bytes {
        return Err(Error::spec(
            "accelerator",
            format!("{} bytes", text.len()),
            format!("must be at most {max_bytes}"),
        ));
    }
    match serde_json::from_str::<UniqueKeys>(text) {
        Ok(UniqueKeys(value)) => Ok(value),
        Err(error) => Err(Error::spec("accelerator", clipped(text), format!("must be valid JSON: {error}"))),
    }
}

struct UniqueKeys(Value);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeysVisitor).map(Self)
    }
}

struct UniqueKeysVisitor;

impl<'de> Visitor<'de> for UniqueKeysVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(UniqueKeys(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut seen = HashSet::new();
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format!("the key {} stands twice", clipped(&key))));
            }
            let UniqueKeys(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
