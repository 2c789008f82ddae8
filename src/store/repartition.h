// Changing the layout of a filled store under traffic, see repartition.cpp.
#pragma once

#include "store/partitions.h"

namespace session_store {

// The next short transaction's work of a repartition that is under way; the caller commits.
// Nothing: there is none.
StepResult repartition_step(Store *store, int wait_ms, PartitionWork *work);
// The same for one that nobody has gone on with for a while: who had called for it is gone.
StepResult resume_repartition_step(Store *store, int wait_ms, PartitionWork *work);

// Begins one: to partitions of that interval, or to a plain table when it is null. Needs an SPI
// connection. ERROR when the table has what a new one would not have.
void begin_repartition(Store *store, Interval *interval);

// Forgets a repartition with the table that it was filling. Needs an SPI connection.
void abandon_repartition(const Store *store);

} // namespace session_store
