//! Reading and writing calibration files.
