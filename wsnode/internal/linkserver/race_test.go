//go:build race

package linkserver

// raced: the race detector allocates, so allocations cannot be judged.
const raced = true
