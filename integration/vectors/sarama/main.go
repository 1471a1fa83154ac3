// Command sarama reads keys in hexadecimal from standard input and prints the partitions that sarama's default
// partitioner gives them. The arguments are partition counts.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sarama:", err)
		os.Exit(1)
	}
}

func run() error {
	var counts []int32
	for _, arg := range os.Args[1:] {
		n, err := strconv.ParseInt(arg, 10, 32)
		if err != nil {
			return err
		}
		counts = append(counts, int32(n))
	}
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprintf(w, "# sarama %s, its default partitioner; first line: partition counts, then one line a key of keys.txt\n", version())
	fmt.Fprintln(w, strings.Join(os.Args[1:], "\t"))

	p := sarama.NewConfig().Producer.Partitioner("vectors")
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		if strings.HasPrefix(sc.Text(), "#") {
			continue
		}
		key, err := hex.DecodeString(sc.Text())
		if err != nil {
			return err
		}
		row := make([]string, len(counts))
		for i, n := range counts {
			partition, err := p.Partition(&sarama.ProducerMessage{Key: sarama.ByteEncoder(key)}, n)
			if err != nil {
				return fmt.Errorf("key %x of %d: %w", key, n, err)
			}
			row[i] = strconv.Itoa(int(partition))
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return w.Flush()
}

func version() string {
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return "of unknown version"
	}
	for _, dep := range bi.Deps {
		if dep.Path == "github.com/IBM/sarama" {
			return dep.Version
		}
	}
	return "of unknown version"
}
