// Command withkafka runs a command beside an Apache Kafka broker of its own, whose address is in the command's
// environment as POINTSMAN_TEST_KAFKA:
//
//	go run ./integration/cmd/withkafka go test ./wsnode/internal/kafka
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/realkafka"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	default:
		fmt.Fprintln(os.Stderr, "withkafka:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, command []string) (err error) {
	if len(command) == 0 {
		return errors.New("no command given")
	}
	dir, err := os.MkdirTemp("", "pointsman-kafka-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var ports procs.Ports
	defer func() { err = errors.Join(err, ports.Close()) }()

	jars, err := realkafka.Fetch(ctx, filepath.Join("integration", "kafka", "pom.xml"), filepath.Join("integration", ".work"))
	if err != nil {
		return fmt.Errorf("run at the repository's root: %w", err)
	}
	cfg := realkafka.Config{Jars: jars, Dir: dir}
	if cfg.Addr, err = ports.Take(); err != nil {
		return err
	}
	if cfg.Controller, err = ports.Take(); err != nil {
		return err
	}
	broker, err := realkafka.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Kill()) }()
	starting, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	if err := broker.Start(starting); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "POINTSMAN_TEST_KAFKA="+broker.Addr())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}
