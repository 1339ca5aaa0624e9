//! Configurations that no ranking can place: what they cost is unknown, whatever it is.

use std::collections::BTreeSet;
use std::ops::Range;

use super::column::{Column, names};
use super::part::{parts, rows_of};
use super::space::Space;
use crate::calibration::CalibrationChoice;
use crate::error::Result;

/// Rows that have no value in a column that ranks, and whose it is: filters aside, rows that no engine would run among
/// them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unranked {
    /// Number of rows.
    pub num_configurations: u128,
    /// Names of the accelerators without a price.
    pub without_price: Vec<String>,
    /// Names of the accelerators whose power nobody measured.
    pub without_power: Vec<String>,
}

impl Space {
    /// The rows of a range (`None` is all of them) that ranking by these columns leaves out for want of a price or of a
    /// measured power.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place on an axis")]
    pub fn unranked(&self, columns: &[Column], rows: Option<Range<u128>>) -> Result<Unranked> {
        let [priced, powered] = [Column::UsdPerMtok, Column::EnergyJ].map(|column| columns.contains(&column));
        let mut found = Unranked::default();
        if !(priced || powered) {
            return Ok(found);
        }
        let accelerators = names(self, Column::Accelerator);
        let (mut without_price, mut without_power) = (BTreeSet::new(), BTreeSet::new());
        for part in parts(self, rows_of(self, rows)?) {
            let space = &part.space;
            let mut pairs = 0_u128;
            for (at, device) in space.accelerators.iter().enumerate() {
                let name = accelerators.get(at + part.offset(Column::Accelerator) as usize);
                let no_price = priced && space.price(at).is_none();
                if no_price {
                    without_price.extend(name.cloned());
                }
                for calibration in &space.calibration {
                    let no_power = powered
                        && match calibration {
                            CalibrationChoice::Fixed(own) => own.power.is_none(),
                            word => word.on(device).power.is_none(),
                        };
                    if no_power {
                        without_power.extend(name.cloned());
                    }
                    pairs += u128::from(no_price || no_power);
                }
            }
            let all = (space.accelerators.len() * space.calibration.len()).max(1) as u128;
            found.num_configurations += space.num_configurations().unwrap_or(u128::MAX) / all * pairs;
        }
        found.without_price = without_price.into_iter().collect();
        found.without_power = without_power.into_iter().collect();
        Ok(found)
    }
}
