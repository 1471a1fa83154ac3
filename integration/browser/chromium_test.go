package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// tab is one page in a headless Chromium.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu  sync.Mutex
	red []string // guarded by mu; errors that the page's console shows
}

// open runs a Chromium of its own for the test and loads a page in it.
func open(t *testing.T, url string) *tab {
	t.Helper()
	// The test's own context ends before its cleanup, which closes the browser in order.
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()),
		chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.WindowSize(1440, 1000),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
	)
	ctx, cancel := chromedp.NewContext(allocator)
	b := &tab{t: t, ctx: ctx}
	var listening sync.WaitGroup
	t.Cleanup(func() {
		end, ended := context.WithTimeout(ctx, 20*time.Second)
		if err := chromedp.Cancel(end); err != nil {
			t.Logf("close Chromium: %v", err)
		}
		ended()
		cancel()
		stop()
		listening.Wait()
	})
	if err := chromedp.Do(ctx); err != nil { // starts it
		t.Fatalf("start Chromium: %v", err)
	}
	console := chromedp.Console(ctx)
	listening.Go(func() {
		for m, err := range console {
			if err != nil {
				return
			}
			b.hear(m)
		}
	})
	b.do("open "+url, chromedp.Navigate(url))
	return b
}

// hear keeps what a developer would see in red.
func (b *tab) hear(m chromedp.ConsoleMessage) {
	if !m.IsException() && m.Type != "error" && m.Type != "assert" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if text := m.String() + " " + m.URL; !slices.Contains(b.red, text) {
		b.red = append(b.red, text)
	}
}

// console is what was red so far.
func (b *tab) console() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.red...)
}

func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("POINTSMAN_CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium found: apt-get install chromium, or say where it is with POINTSMAN_CHROMIUM")
	return ""
}

func (b *tab) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v\n%s", what, err, b.summary())
	}
}

// until waits for an expression to be true.
func (b *tab) until(what, expression string, within time.Duration) {
	b.t.Helper()
	_, err := chromedp.Run(b.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(within), chromedp.WithPollingInterval(50*time.Millisecond)))
	if err != nil {
		b.screenshot("failed")
		b.t.Fatalf("%s: not within %v: %v\n%s", what, within, err, b.summary())
	}
}

// eval reads an expression; a promise is waited for.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", expression, err, b.summary())
	}
	return v
}

// summary is the page's text, for a failure.
func (b *tab) summary() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
	if err != nil {
		text = err.Error()
	}
	return fmt.Sprintf("the console shows: %q\nthe page shows:\n%s", b.console(), text)
}

// dress sets what the browser's user prefers and how large the window is.
func (b *tab) dress(scheme string, width, height int64) {
	b.t.Helper()
	b.do("show it "+scheme, chromedp.EmulateViewport(width, height), func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return chromedp.Void{}, err
	})
	b.until("the page takes its new size", fmt.Sprintf(`innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches`, width, scheme), 10*time.Second)
}

// screenshot keeps a picture in the folder that ARTIFACTS names, where there is one.
func (b *tab) screenshot(name string) {
	b.t.Helper()
	dir := os.Getenv("ARTIFACTS")
	if dir == "" {
		dir = b.t.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Fatalf("take a picture: %v", err)
	}
	if len(picture) < 10_000 {
		b.t.Errorf("picture %s has %d bytes: nothing is on it", name, len(picture))
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), picture, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
