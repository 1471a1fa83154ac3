//go:build !pointsman_faults

package wsnode

import "github.com/pointsmanhq/pointsman/wsnode/internal/partition"

// damage reads POINTSMAN_FAULT in a test build; this build delivers as it should.
func damage(string) (func(partition.Output) partition.Output, error) { return nil, nil }
