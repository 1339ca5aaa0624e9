//! `instructions CASE ISA TIMES`: runs one case so many times on one thread, for an instruction counter to watch;
//! prints the configurations of one time.

use std::sync::Arc;

use roofsim_bench::{Columns, MODELS, batches, best, bound, categorical, counts, front, histogram, ideal, space};
use roofsim_core::error::{Error, Result};
use roofsim_core::sweep::{Isa, Runner};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (case, isa) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let times: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let runner = Runner { num_threads: 1, isa: Isa::parse("ISA", &isa)? };
    let space = match case.as_str() {
        "best" | "top-100" | "front" | "columns" | "bound" | "batches" | "counts" | "histogram" => {
            space(&MODELS, 256, 2048)?
        }
        "ideal" => ideal(space(&MODELS, 256, 2048)?),
        "categorical" => categorical(256, 64)?,
        _ => return Err(Error::spec("CASE", case, "must be a case of instructions.py")),
    };
    let space = Arc::new(space);
    let mut columns = if case == "columns" { Some(Columns::of(&space)?) } else { None };
    let (mut codes, mut null) = (Vec::new(), Vec::new());
    for _ in 0..times {
        match (case.as_str(), &mut columns) {
            (_, Some(columns)) => columns.fill(&space, runner)?,
            ("front", _) => drop(front(&space, runner)?),
            ("bound", _) => bound(&space, runner, &mut codes, &mut null)?,
            ("counts", _) => drop(counts(&space, runner)?),
            ("histogram", _) => drop(histogram(&space, runner)?),
            ("batches", _) => drop(batches(&space, runner)?),
            (case, _) => drop(best(&space, runner, if case == "top-100" { 100 } else { 1 })?),
        }
    }
    println!("{}", space.num_configurations().unwrap_or(0));
    Ok(())
}
