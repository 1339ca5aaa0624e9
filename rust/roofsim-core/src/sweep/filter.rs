//! `where` filters: `time_s <= 0.03`, `fits`, `not fits`, `bound == memory`.

use super::column::{Column, ColumnKind};
use super::line::{Row, names};
use super::space::Space;
use crate::error::{Error, Result};

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// One condition on one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    column: Column,
    test: Test,
    value: f64,
}

const TESTS: [(&str, Test); 6] = [
    ("<=", Test::LessEqual),
    (">=", Test::GreaterEqual),
    ("==", Test::Equal),
    ("!=", Test::NotEqual),
    ("<", Test::Less),
    (">", Test::Greater),
];

/// Parses conditions that must all hold.
pub fn parse_filters(space: &Space, texts: &[String]) -> Result<Vec<Filter>> {
    texts.iter().map(|text| Filter::parse(space, text)).collect()
}

impl Filter {
    fn parse(space: &Space, text: &str) -> Result<Self> {
        const RULE: &str = "must be `column`, `not column` or `column OP value` with OP one of <, <=, >, >=, ==, !=";
        let Some((name, symbol, value)) =
            TESTS.iter().find_map(|(symbol, test)| text.split_once(symbol).map(|(a, b)| (a, *test, b)))
        else {
            let (name, value) = match text.trim().strip_prefix("not ") {
                Some(rest) => (rest, 0.0),
                None => (text, 1.0),
            };
            let column = Column::parse("where", name)?;
            if column.kind() != ColumnKind::Flag {
                return Err(Error::spec("where", text, RULE));
            }
            return Ok(Self { column, test: Test::Equal, value });
        };
        let column = Column::parse("where", name)?;
        let literal = value.trim().trim_matches(|c| c == '"' || c == '\'');
        let value = match column.kind() {
            ColumnKind::Code => {
                if !matches!(symbol, Test::Equal | Test::NotEqual) {
                    return Err(Error::spec("where", text, format!("{} has no order: use == or !=", column.name())));
                }
                let known = names(space, column);
                let position = known.iter().position(|name| name == literal).ok_or_else(|| {
                    Error::spec("where", text, format!("{} is one of {}", column.name(), known.join(", ")))
                })?;
                position as f64
            }
            ColumnKind::Flag if literal.eq_ignore_ascii_case("true") => 1.0,
            ColumnKind::Flag if literal.eq_ignore_ascii_case("false") => 0.0,
            _ => match literal.parse::<f64>() {
                Ok(number) if !number.is_nan() => number,
                _ => return Err(Error::spec("where", text, RULE)),
            },
        };
        Ok(Self { column, test: symbol, value })
    }

    /// Whether a row passes; a null never does.
    pub(super) fn holds(&self, row: &Row<'_>) -> bool {
        let Some(x) = row.value(self.column) else { return false };
        match self.test {
            Test::Less => x < self.value,
            Test::LessEqual => x <= self.value,
            Test::Greater => x > self.value,
            Test::GreaterEqual => x >= self.value,
            Test::Equal => x == self.value,
            Test::NotEqual => x != self.value,
        }
    }
}
