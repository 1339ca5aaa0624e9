//! Which calibration is meant before it is known for which device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Calibration, builtin};
use crate::hardware::Accelerator;

/// A calibration as it is asked for: most words mean another one on each device.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum CalibrationChoice {
    /// The device's default.
    #[default]
    Calibrated,
    /// The device's default under unbroken load.
    Sustained,
    /// Kernels of one library, wherever it was measured.
    Library(&'static str),
    /// The same calibration for every device.
    Fixed(Arc<Calibration>),
}

impl CalibrationChoice {
    /// The choice behind a word that means another calibration on each device: `calibrated`, `sustained` or the name of
    /// a kernel library in the box.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "calibrated" => Some(Self::Calibrated),
            "sustained" => Some(Self::Sustained),
            _ => kernel_libraries().into_iter().find(|&library| library == word).map(Self::Library),
        }
    }

    /// What it means on one device.
    pub fn on(&self, accelerator: &Accelerator) -> Arc<Calibration> {
        match self {
            Self::Calibrated => Arc::new(Calibration::default_for(accelerator)),
            Self::Sustained => Arc::new(Calibration::default_for(accelerator).sustained()),
            Self::Library(library) => Arc::new(builtin::of_library(accelerator, library)),
            Self::Fixed(calibration) => Arc::clone(calibration),
        }
    }

    /// The word, or the name of the calibration.
    pub fn name(&self) -> &str {
        match self {
            Self::Calibrated => "calibrated",
            Self::Sustained => "sustained",
            Self::Library(library) => library,
            Self::Fixed(calibration) => &calibration.name,
        }
    }
}

impl From<Option<Arc<Calibration>>> for CalibrationChoice {
    fn from(own: Option<Arc<Calibration>>) -> Self {
        own.map_or(Self::Calibrated, Self::Fixed)
    }
}

/// Kernel libraries of the calibrations in the box, in the order in which they came.
pub fn kernel_libraries() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for calibration in builtin::in_the_box() {
        if !names.contains(&calibration.kernel_library.as_str()) {
            names.push(&calibration.kernel_library);
        }
    }
    names
}

/// One sentence where devices are compared on kernels of different libraries; `None` where they are not.
///
/// Such a comparison ranks libraries along with devices. Bounds, which know no kernels, stand beside anything.
pub fn mixed_libraries<'a>(devices: impl IntoIterator<Item = (&'a Accelerator, &'a Calibration)>) -> Option<String> {
    let devices: Vec<_> = devices.into_iter().filter(|(_, calibration)| !calibration.is_ideal()).collect();
    let mut by_library: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (device, calibration) in &devices {
        let names = by_library.entry(&calibration.kernel_library).or_default();
        if !names.contains(&device.name.as_str()) {
            names.push(&device.name);
        }
    }
    if by_library.len() < 2 {
        return None;
    }
    let parts: Vec<String> =
        by_library.iter().map(|(library, names)| format!("{library} ({})", names.join(", "))).collect();
    let common = kernel_libraries().into_iter().find(|library| {
        devices.iter().all(|(device, _)| builtin::of_library(device, library).kernel_library == *library)
    });
    let advice = match common {
        Some(library) => format!("calibration {library} prices all of them on one"),
        None => "no library was measured for all of them".to_owned(),
    };
    Some(format!(
        "Kernel libraries differ: {}. Part of what sets these devices apart is the library; {advice}.",
        parts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Result;

    fn device(name: &str, family: &str) -> Result<Accelerator> {
        let text = include_str!("../../examples/h100-sxm.json")
            .replacen("\"h100-sxm\"", &format!("{name:?}"), 1)
            .replacen("\"hopper\"", &format!("{family:?}"), 1);
        Accelerator::from_json(&text)
    }

    fn on(word: &str, device: &Accelerator) -> Arc<Calibration> {
        CalibrationChoice::parse(word).unwrap_or_default().on(device)
    }

    fn library_and_basis(calibration: &Calibration) -> (&str, &str) {
        (&calibration.kernel_library, &calibration.provenance.basis)
    }

    #[test]
    fn a_library_is_the_device_s_own_or_borrowed_or_another_one_stands_in_and_is_said_to() -> Result<()> {
        assert_eq!(library_and_basis(&on("vllm", &device("h100-sxm", "hopper")?)), ("vllm", "published"));
        assert_eq!(library_and_basis(&on("sglang", &device("mine", "hopper")?)), ("sglang", "borrowed"));
        assert_eq!(library_and_basis(&on("vllm", &device("mine", "cdna3")?)), ("vllm", "borrowed"));
        let other = on("torch", &device("mine", "blackwell")?);
        assert_eq!(library_and_basis(&other), ("tensorrt-llm", "borrowed"));
        assert!(other.provenance.note.contains("torch was not measured"), "{}", other.provenance.note);
        assert_eq!(CalibrationChoice::parse("cutlass"), None);
        Ok(())
    }

    #[test]
    fn a_comparison_of_libraries_says_so_and_names_one_for_all() -> Result<()> {
        let (hopper, blackwell) = (device("h100-sxm", "hopper")?, device("mine", "blackwell")?);
        let both = |word: &str| {
            let (one, two) = (on(word, &hopper), on(word, &blackwell));
            mixed_libraries([(&hopper, &*one), (&blackwell, &*two)]).unwrap_or_default()
        };
        let said = both("calibrated");
        assert!(said.contains("torch (h100-sxm)") && said.contains("calibration tensorrt-llm prices"), "{said}");
        assert_eq!(both("tensorrt-llm"), "");
        let (ideal, own) = (Calibration::ideal(), on("calibrated", &blackwell));
        assert_eq!(mixed_libraries([(&hopper, &ideal), (&blackwell, &*own)]), None);
        Ok(())
    }
}
