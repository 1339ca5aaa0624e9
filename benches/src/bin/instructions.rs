//! `instructions CASE ISA TIMES`: runs one case so many times on one thread, for an instruction counter to watch;
//! prints the configurations of one time.

use roofsim_bench::{Columns, MODELS, best, categorical, front, space};
use roofsim_core::error::{Error, Result};
use roofsim_core::sweep::{Isa, Runner};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (case, isa) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let times: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let runner = Runner { num_threads: 1, isa: Isa::parse("ISA", &isa)? };
    let space = match case.as_str() {
        "best" | "top-100" | "front" | "columns" => space(&MODELS, 256, 2048)?,
        "categorical" => categorical(256, 64)?,
        _ => return Err(Error::spec("CASE", case, "must be best, top-100, front, columns or categorical")),
    };
    let mut columns = if case == "columns" { Some(Columns::of(&space)?) } else { None };
    for _ in 0..times {
        match (case.as_str(), &mut columns) {
            (_, Some(columns)) => columns.fill(&space, runner)?,
            ("front", _) => drop(front(&space, runner)?),
            (case, _) => drop(best(&space, runner, if case == "top-100" { 100 } else { 1 })?),
        }
    }
    println!("{}", space.num_configurations().unwrap_or(0));
    Ok(())
}
