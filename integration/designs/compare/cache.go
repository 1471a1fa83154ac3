package compare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
)

// Cache is a Redis that keeps nothing on disk.
type Cache struct {
	addr  string
	dir   string
	path  string
	ports procs.Ports
	proc  *procs.Process
}

// OpenCache starts one.
func OpenCache(ctx context.Context, dir string) (_ *Cache, err error) {
	c := &Cache{dir: filepath.Join(dir, "redis")}
	if c.path, err = exec.LookPath("redis-server"); err != nil {
		return nil, fmt.Errorf("run the cache: Redis is needed (Debian: apt-get install redis-server): %w", err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	if c.addr, err = c.ports.Take(); err != nil {
		return nil, err
	}
	return c, c.start(ctx)
}

func (c *Cache) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(c.addr)
	if err != nil {
		return err
	}
	c.proc, err = procs.Start(procs.Spec{
		Name: "redis", Path: c.path, Dir: c.dir, Log: filepath.Join(c.dir, "redis.log"),
		Args: []string{"--bind", host, "--port", port, "--save", "", "--appendonly", "no"},
	})
	if err != nil {
		return err
	}
	return c.proc.WaitTCP(ctx, c.addr)
}

func (c *Cache) pid() int { return c.proc.PID() }

// lose ends it and starts an empty one.
func (c *Cache) lose(ctx context.Context) error {
	if err := c.proc.Kill(); err != nil {
		return err
	}
	return c.start(ctx)
}

// Close ends it.
func (c *Cache) Close() error { return errors.Join(c.proc.Kill(), c.ports.Close()) }

// metric sums a metric over its labels; 0 where it cannot be read.
func metric(ctx context.Context, admin, name string) (sum float64) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/metrics", nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		if v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64); err == nil {
			sum += v
		}
	}
	return sum
}

// Addr is host:port.
func (c *Cache) Addr() string { return c.addr }
