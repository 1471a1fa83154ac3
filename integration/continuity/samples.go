package continuity

// Process is what one process used over its life.
type Process struct{}

// Slope is how a process's memory and goroutines grow.
type Slope struct{}

// Busy says who used the machine.
type Busy struct{}
