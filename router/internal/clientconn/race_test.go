//go:build race

package clientconn

// raced: the race detector makes pools forget, so allocations cannot be judged.
const raced = true
