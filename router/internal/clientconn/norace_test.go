//go:build !race

package clientconn

const raced = false
