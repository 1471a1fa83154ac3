// Package earlier builds router and wsnode as they were at an earlier commit, for tests that run two versions beside
// each other.
package earlier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoCommit says that the repository's history does not reach back to the commit.
var ErrNoCommit = errors.New("the history does not hold the earlier commit (a shallow clone? git fetch --unshallow)")

// Build returns the folder with the programs of the commit that the file names. They are built once and kept in work.
func Build(ctx context.Context, root, file, work string) (bin, commit string, err error) {
	named, err := os.ReadFile(file) //nolint:gosec // a file of this repository
	if err != nil {
		return "", "", fmt.Errorf("build an earlier version: %w", err)
	}
	commit = strings.TrimSpace(string(named))
	source := filepath.Join(work, "earlier", commit)
	bin = filepath.Join(source, "bin")
	if _, err := os.Stat(filepath.Join(bin, "built")); err == nil {
		return bin, commit, nil
	}
	if err := git(ctx, root, "cat-file", "-e", commit+"^{commit}"); err != nil {
		return "", "", fmt.Errorf("%w: %s: %w", ErrNoCommit, commit, err)
	}
	if err := os.RemoveAll(source); err != nil {
		return "", "", fmt.Errorf("build %s: %w", commit, err)
	}
	if err := os.MkdirAll(source, 0o755); err != nil {
		return "", "", fmt.Errorf("build %s: %w", commit, err)
	}
	archive := filepath.Join(source, "source.tar")
	if err := git(ctx, root, "archive", "--format=tar", "--output="+archive, commit); err != nil {
		return "", "", fmt.Errorf("build %s: %w", commit, err)
	}
	if err := run(ctx, source, "tar", "-xf", archive); err != nil {
		return "", "", fmt.Errorf("build %s: %w", commit, err)
	}
	version := "github.com/pointsmanhq/pointsman/pkg/buildinfo.version=" + commit[:min(12, len(commit))]
	err = run(ctx, source, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X "+version,
		"-o", bin+string(filepath.Separator), "./router/cmd/router", "./wsnode/cmd/wsnode")
	if err != nil {
		return "", "", fmt.Errorf("build %s: %w", commit, err)
	}
	if err := os.WriteFile(filepath.Join(bin, "built"), nil, 0o600); err != nil {
		return "", "", fmt.Errorf("build %s: %w", commit, err)
	}
	return bin, commit, os.Remove(archive)
}

func git(ctx context.Context, dir string, args ...string) error { return run(ctx, dir, "git", args...) }

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
	}
	return nil
}
