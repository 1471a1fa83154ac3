// Command conformance holds a server against docs/protocol.md and prints a line for each promise. It exits with 1 when
// one is broken.
//
//	go run ./integration/cmd/conformance -url ws://127.0.0.1:8080 -kafka 127.0.0.1:9092 -topic records
//
// Without -kafka or -produce the checks that need records are left out. -produce is a shell command that puts one record
// into the topic: its key is in $KEY, its value on standard input, or nowhere with $TOMBSTONE set; records with headers
// are left to -kafka. A server that asks for tokens needs -token, a shell command that prints one for $KEY.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/pointsmanhq/pointsman/integration/conformance"
	"github.com/pointsmanhq/pointsman/integration/internal/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context) (code int, err error) {
	var cfg conformance.Config
	flag.StringVar(&cfg.URL, "url", "ws://127.0.0.1:8080", "the server")
	kafka := flag.String("kafka", "", "brokers to produce to, HOST:PORT,...")
	topic := flag.String("topic", "records", "the topic, with -kafka")
	produce := flag.String("produce", "", "shell command that produces a record")
	token := flag.String("token", "", "shell command that prints a token for $KEY")
	only := flag.String("only", "", "checks to make, separated by commas")
	flag.DurationVar(&cfg.Patience, "patience", 10*time.Second, "how long an answer may take")
	flag.Parse()
	cfg.Run = strconv.FormatInt(time.Now().UnixMilli(), 36)
	if *only != "" {
		cfg.Only = strings.Split(*only, ",")
	}
	switch {
	case *kafka != "":
		p, err := load.NewProducer(strings.Split(*kafka, ","), *topic)
		if err != nil {
			return 2, err
		}
		defer p.Close()
		cfg.Produce = func(ctx context.Context, key string, value []byte, headers []conformance.Header) error {
			r := &kgo.Record{Key: []byte(key), Value: value}
			for _, h := range headers {
				r.Headers = append(r.Headers, kgo.RecordHeader(h))
			}
			return p.Produce(ctx, r)
		}
	case *produce != "":
		cfg.Produce = func(ctx context.Context, key string, value []byte, headers []conformance.Header) error {
			if headers != nil {
				return errors.New("records with headers need -kafka")
			}
			env := []string{"KEY=" + key}
			if value == nil {
				env = append(env, "TOMBSTONE=1")
			}
			_, err := shell(ctx, *produce, value, env...)
			return err
		}
	}
	if *token != "" {
		cfg.Token = func(key string) string {
			out, err := shell(ctx, *token, nil, "KEY="+key)
			if err != nil {
				fmt.Fprintln(os.Stderr, "conformance: token:", err)
			}
			return strings.TrimSpace(out)
		}
	}
	made := 0
	failed := conformance.Run(ctx, cfg, func(r conformance.Result) {
		switch {
		case r.LeftOut != "":
			fmt.Printf("left out  %-20s %s (%s)\n", r.Check.Name, r.Check.Says, r.LeftOut)
			return
		case r.Err != nil:
			fmt.Printf("FAILED    %-20s %s\n          %-20s %v\n", r.Check.Name, r.Check.Says, "", r.Err)
		default:
			fmt.Printf("ok        %-20s %s\n", r.Check.Name, r.Check.Says)
		}
		made++
	})
	switch {
	case made == 0:
		return 2, errors.New("no check was made")
	case failed > 0:
		return 1, fmt.Errorf("%d of %d checks failed", failed, made)
	}
	fmt.Printf("all %d checks passed\n", made)
	return 0, nil
}

func shell(ctx context.Context, command string, in []byte, env ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = bytes.NewReader(in)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, complaint.String())
	}
	return out.String(), nil
}
