//! One error type for the whole core. Every variant names the field, the value and the rule.

use thiserror::Error;

/// What went wrong, always with the field, the value it had and the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// A specification (model config, accelerator, layout, workload) holds a value that cannot be right.
    #[error("{field} = {value}: {rule}")]
    Spec {
        /// Dotted path of the field, for example `text_config.num_hidden_layers`.
        field: String,
        /// The value as the user wrote it; `missing` when there was none.
        value: String,
        /// The rule it broke, in words.
        rule: String,
    },
    /// The request is well formed but names something this library has no law or reader for.
    #[error("{field} = {value}: {rule}")]
    Unsupported {
        /// Dotted path of the field.
        field: String,
        /// The value as the user wrote it.
        value: String,
        /// What is known instead.
        rule: String,
    },
    /// An exact count left the range of its integer type.
    #[error("{field} = {value}: {rule}")]
    CountOverflow {
        /// The quantity that overflowed.
        field: String,
        /// The value or the factors that made it.
        value: String,
        /// The limit it passed.
        rule: String,
    },
    /// The caller asked the computation to stop.
    #[error("interrupted")]
    Interrupted,
}

#[allow(clippy::needless_pass_by_value)] // values are shown, not kept: callers hand over numbers and texts alike
impl Error {
    /// A [`Error::Spec`].
    pub fn spec(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::Spec { field: field.into(), value: value.to_string(), rule: rule.into() }
    }

    /// A [`Error::Unsupported`].
    pub fn unsupported(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), value: value.to_string(), rule: rule.into() }
    }

    /// A [`Error::CountOverflow`].
    pub fn overflow(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::CountOverflow { field: field.into(), value: value.to_string(), rule: rule.into() }
    }
}

/// Result of a core computation.
pub type Result<T> = std::result::Result<T, Error>;
