//! `where` filters: `time_s <= 0.03`, `fits`, `not fits`, `bound == memory`.

use super::block::Block;
use super::column::{Column, ColumnKind, names};
use super::kernel::{self, BLOCK, Mask, Test};
use super::space::Space;
use crate::error::{Error, Result};

/// How a value is tested.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Check {
    Order(Test),
    Equal { wanted: bool },
}

/// One condition on one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The column.
    pub(super) column: Column,
    check: Check,
    value: f64,
    /// Further codes of the same name: an axis may hold a value twice.
    same: Vec<f64>,
}

const CHECKS: [(&str, Check); 6] = [
    ("<=", Check::Order(Test::LessEqual)),
    (">=", Check::Order(Test::GreaterEqual)),
    ("==", Check::Equal { wanted: true }),
    ("!=", Check::Equal { wanted: false }),
    ("<", Check::Order(Test::Less)),
    (">", Check::Order(Test::Greater)),
];

/// Parses conditions that must all hold.
pub fn parse_filters(space: &Space, texts: &[String]) -> Result<Vec<Filter>> {
    texts.iter().map(|text| Filter::parse(space, text)).collect()
}

impl Filter {
    fn parse(space: &Space, text: &str) -> Result<Self> {
        const RULE: &str = "must be `column`, `not column` or `column OP value` with OP one of <, <=, >, >=, ==, !=";
        let Some((name, check, value)) =
            CHECKS.iter().find_map(|(symbol, check)| text.split_once(symbol).map(|(a, b)| (a, *check, b)))
        else {
            let (name, value) = match text.trim().strip_prefix("not ") {
                Some(rest) => (rest, 0.0),
                None => (text, 1.0),
            };
            let column = Column::parse("where", name)?;
            if column.kind() != ColumnKind::Flag {
                return Err(Error::spec("where", text, RULE));
            }
            return Ok(Self { column, check: Check::Equal { wanted: true }, value, same: Vec::new() });
        };
        let column = Column::parse("where", name)?;
        let literal = value.trim().trim_matches(|c| c == '"' || c == '\'');
        let mut same = Vec::new();
        let value = match column.kind() {
            ColumnKind::Code => {
                if matches!(check, Check::Order(_)) {
                    return Err(Error::spec("where", text, format!("{} has no order: use == or !=", column.name())));
                }
                let known = names(space, column);
                let mut codes =
                    known.iter().enumerate().filter(|(_, name)| *name == literal).map(|(code, _)| code as f64);
                let first = codes.next().ok_or_else(|| {
                    Error::spec("where", text, format!("{} is one of {}", column.name(), known.join(", ")))
                })?;
                same = codes.collect();
                first
            }
            ColumnKind::Flag => match literal.to_ascii_lowercase().as_str() {
                "true" | "1" => 1.0,
                "false" | "0" => 0.0,
                _ => return Err(Error::spec("where", text, format!("{} is true or false", column.name()))),
            },
            _ => match literal.parse::<f64>() {
                Ok(number) if !number.is_nan() => number,
                _ => return Err(Error::spec("where", text, RULE)),
            },
        };
        Ok(Self { column, check, value, same })
    }

    /// The same filter where codes start at `offset`: for a part of the space.
    pub(super) fn shifted(&self, offset: f64) -> Self {
        let same = self.same.iter().map(|code| code - offset).collect();
        Self { value: self.value - offset, same, ..self.clone() }
    }

    /// Clears the mask of the rows that fail; a null always fails.
    pub(super) fn apply(&self, block: &Block<'_>, mask: &mut [Mask]) {
        if let Some(value) = block.constant(self.column) {
            if !self.holds(value) {
                mask.fill(0);
            }
            return;
        }
        // `fits` is an order test on what is in the table already.
        if self.column == Column::Fits
            && let Check::Equal { wanted } = self.check
        {
            let test = if (self.value == 1.0) == wanted { Test::GreaterEqual } else { Test::Less };
            kernel::keep(block.isa, block.max_sequences(), test, block.resident(), mask);
            return;
        }
        if self.column == Column::TimeS {
            self.test(block, block.time_s(), mask);
            return;
        }
        let mut values = [0.0; BLOCK];
        if let Some(values) = values.get_mut(..block.len) {
            block.fill(self.column, values);
            self.test(block, values, mask);
        }
    }

    /// No time above this passes.
    fn latest(&self) -> f64 {
        match self.check {
            Check::Order(Test::Less | Test::LessEqual) if self.column == Column::TimeS => self.value,
            _ => f64::INFINITY,
        }
    }

    fn test(&self, block: &Block<'_>, values: &[f64], mask: &mut [Mask]) {
        match self.check {
            Check::Order(test) => kernel::keep(block.isa, values, test, self.value, mask),
            Check::Equal { wanted } => {
                kernel::keep_equal(block.isa, values, self.value, wanted, mask);
                // NaN differs from everything, but a null fails every filter.
                if !wanted {
                    mask.iter_mut().zip(values).for_each(|(m, x)| *m = if x.is_nan() { 0 } else { *m });
                }
            }
        }
    }

    /// Whether no value from `least` to `most` passes.
    pub(super) fn excludes(&self, least: f64, most: f64) -> bool {
        match self.check {
            Check::Order(Test::Less) => least >= self.value,
            Check::Order(Test::LessEqual) => least > self.value,
            Check::Order(Test::Greater) => most <= self.value,
            Check::Order(Test::GreaterEqual) => most < self.value,
            // Several codes may have the asked name.
            Check::Equal { wanted: true } => {
                let outside = |value: f64| least > value || most < value;
                outside(self.value) && self.same.iter().all(|&code| outside(code))
            }
            Check::Equal { wanted: false } => least == self.value && most == self.value,
        }
    }

    /// Whether every value from `least` to `most` passes.
    pub(super) fn admits(&self, least: f64, most: f64) -> bool {
        match self.check {
            Check::Equal { wanted: false } => least > self.value || most < self.value,
            _ => self.holds(least) && self.holds(most),
        }
    }

    pub(super) fn holds(&self, x: f64) -> bool {
        match self.check {
            Check::Order(Test::Less) => x < self.value,
            Check::Order(Test::LessEqual) => x <= self.value,
            Check::Order(Test::Greater) => x > self.value,
            Check::Order(Test::GreaterEqual) => x >= self.value,
            Check::Equal { wanted } => !x.is_nan() && (x == self.value || self.same.contains(&x)) == wanted,
        }
    }
}

/// Keeps the rows of a block that have a result and pass every filter.
pub(super) fn keep_passing(block: &Block<'_>, filters: &[Filter], mask: &mut [Mask]) {
    block.valid(mask);
    for filter in filters {
        filter.apply(block, mask);
    }
}

/// As [`keep_passing`], but a row without a result stays where no filter asks for a result.
pub(super) fn keep_known(block: &Block<'_>, filters: &[Filter], mask: &mut [Mask]) {
    if filters.iter().all(|filter| filter.column.is_always_known()) {
        mask.fill(Mask::MAX);
    } else {
        block.valid(mask);
    }
    for filter in filters {
        filter.apply(block, mask);
    }
}

/// No row with a time above this passes all filters; infinity where none of them says so.
pub(super) fn latest(filters: &[Filter]) -> f64 {
    filters.iter().map(Filter::latest).fold(f64::INFINITY, f64::min)
}
