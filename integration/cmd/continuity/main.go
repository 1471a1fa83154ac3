// Command continuity runs a real Pointsman under random faults and judges what its clients received, see package
// continuity. It ends with 1 when a promise was broken and with 2 for a bad option.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pointsmanhq/pointsman/integration/continuity"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	opts, code := parse(args)
	if code >= 0 {
		return code
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the program at once; the kernel ends its children with it
	}()
	fmt.Printf("seed %d\n", opts.Seed)
	began := time.Now()
	opts.Logf = func(format string, args ...any) {
		fmt.Printf("%s %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
	}
	rep, err := continuity.Do(ctx, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "continuity:", err)
		return 1
	}
	fmt.Printf("\n%s", rep)
	fmt.Printf("all of it took %s\n", time.Since(began).Round(time.Second))
	if len(rep.Failed) > 0 {
		return 1
	}
	return 0
}

func or(text, without string) string {
	if text == "" {
		return without
	}
	return text
}

func parse(args []string) (continuity.Options, int) {
	var o continuity.Options
	var faults string
	flags := flag.NewFlagSet("continuity", flag.ContinueOnError)
	flags.IntVar(&o.Seconds, "seconds", 600, "how long faults are made")
	flags.Uint64Var(&o.Seed, "seed", 1, "what is drawn from; 0 takes the time of day")
	flags.StringVar(&faults, "faults", "all", "kinds of faults, with commas between")
	flags.BoolVar(&o.Overlap, "overlap", false, "faults do not wait for the healing of those before; pauses are not judged then")
	flags.IntVar(&o.Clients, "clients", 10_000, "how many clients")
	flags.Float64Var(&o.Rate, "rate", 0, "records a second; 0 for four in ten seconds per client")
	flags.IntVar(&o.Size, "size", 128, "bytes of a value, about")
	flags.IntVar(&o.Routers, "routers", 3, "how many routers")
	flags.IntVar(&o.Nodes, "nodes", 4, "how many nodes at the beginning; up to two more join")
	partitions := flags.Int("partitions", 16, "of the topic")
	flags.BoolVar(&o.Spare, "spare", true, "never end the first router and the first node, only freeze them or cut them off")
	flags.BoolVar(&o.NoPauses, "no-pauses", false, "print pauses and do not judge them, for machines that have more to do")
	flags.IntVar(&o.Quiet, "quiet", 10, "seconds before the first fault, for comparison")
	flags.StringVar(&o.Bin, "bin", or(os.Getenv("POINTSMAN_BIN"), "bin"), "folder with router and wsnode")
	flags.StringVar(&o.Dir, "dir", "", "folder for logs and data, kept; a temporary one without it")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return o, 0
	case err != nil:
		return o, 2
	}
	var err error
	if flags.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	} else if o.Kinds, err = continuity.ParseKinds(faults); err == nil {
		o.Partitions = int32(*partitions) //nolint:gosec // checked next
		if o.Rate == 0 {
			o.Rate = float64(o.Clients) * 0.4
		}
		if o.Seed == 0 {
			o.Seed = uint64(time.Now().UnixNano()) % 1_000_000 //nolint:gosec // after 1970
		}
		err = o.Check()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "continuity:", err)
		return o, 2
	}
	return o, -1
}
