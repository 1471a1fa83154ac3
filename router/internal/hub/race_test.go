//go:build race

package hub

// raced: the race detector makes pools forget, so allocations cannot be judged.
const raced = true
