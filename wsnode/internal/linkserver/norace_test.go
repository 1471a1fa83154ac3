//go:build !race

package linkserver

const raced = false
