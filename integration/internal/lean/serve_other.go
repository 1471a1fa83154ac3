//go:build !linux

package lean

import (
	"context"
	"errors"
)

// Serve is for Linux.
func Serve(context.Context, string) error { return errors.New("benchmarks need Linux: epoll") }
