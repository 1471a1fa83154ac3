package options_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/pointsmanhq/pointsman/pkg/options"
)

// asProgram makes the test binary a program of its own, for signals and exit codes.
const asProgram = "OPTIONS_TEST_AS_PROGRAM"

// drainer is a program that stops in order, or that does not get on with it.
type drainer struct {
	Stuck bool `help:"Never finish stopping."`
}

func (d *drainer) Run(ctx context.Context, env options.Env) error {
	fmt.Fprintln(env.Stdout, "serving")
	<-ctx.Done()
	fmt.Fprintln(env.Stdout, "draining")
	if d.Stuck {
		select {}
	}
	return nil
}

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(options.Main(options.Program{Name: "drainer"}, &drainer{}))
	}
	os.Exit(m.Run())
}

func TestFirstSignalDrainsSecondStopsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name    string
		environ string
		signals []os.Signal
		code    int
		errs    string
	}{
		{"SIGTERM", "", []os.Signal{syscall.SIGTERM}, 0, ""},
		{"interrupt", "", []os.Signal{os.Interrupt}, 0, ""},
		{"two", "POINTSMAN_STUCK=true", []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, 1, "drainer: second signal: stopping at once\n"},
		{"bad option", "POINTSMAN_STUCK=maybe", nil, 2, "drainer: POINTSMAN_STUCK: bool value must be true, 1, yes, false, 0 or no but got \"maybe\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), asProgram+"=1", tt.environ)
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for _, s := range tt.signals {
				lines.Scan() // "serving" before the first signal, "draining" before the second
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := io.Copy(io.Discard, out); err != nil {
				t.Fatal(err)
			}
			err = cmd.Wait()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tt.code {
				t.Errorf("exit code = %d, want %d: %s", got, tt.code, errs.String())
			}
			if got := errs.String(); got != tt.errs {
				t.Errorf("stderr = %q, want %q", got, tt.errs)
			}
		})
	}
}
