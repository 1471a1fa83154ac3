//go:build !unix

package doctor

import "errors"

// fileLimit is not known here.
func fileLimit() (uint64, error) { return 0, errors.ErrUnsupported }
