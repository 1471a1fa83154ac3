package stack

import (
	"fmt"
	"path/filepath"
)

// Upgradable is a Stack whose programs can be replaced by those of another version.
type Upgradable interface {
	// UsePrograms has every router and node that is started from now on run the program in dir.
	UsePrograms(dir string) error
}

// Root is the repository's folder.
func Root() (string, error) { return repository() }

// Work is where tests keep what they build.
func Work(root string) string { return filepath.Join(root, "integration", ".work") }

func (c *cluster) UsePrograms(dir string) error {
	l, ok := c.launch.(*processes)
	if !ok {
		return fmt.Errorf("use the programs in %s: %w", dir, ErrUnsupported)
	}
	l.bin.Store(&dir)
	return nil
}
