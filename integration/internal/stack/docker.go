package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// container is the engine's command line.
type container struct {
	compose []string // "docker compose" or "docker-compose"; nil when there is none
}

func findDocker(ctx context.Context) (container, error) {
	for _, compose := range [][]string{{"docker", "compose"}, {"docker-compose"}} {
		if exec.CommandContext(ctx, compose[0], append(compose[1:], "version")...).Run() == nil {
			return container{compose: compose}, nil
		}
	}
	return container{}, errors.New("neither `docker compose` nor docker-compose answers")
}

func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (container) run(ctx context.Context, args ...string) error {
	_, err := output(exec.CommandContext(ctx, "docker", args...))
	return err
}

// state is what the engine says about a container.
type state struct {
	running  bool
	pid      int
	exitCode int
	ip       string
}

func (container) inspect(ctx context.Context, id string) (state, error) {
	out, err := output(exec.CommandContext(ctx, "docker", "inspect", id))
	if err != nil {
		return state{}, err
	}
	var all []struct {
		State struct {
			Running  bool
			Pid      int
			ExitCode int
		}
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		return state{}, fmt.Errorf("docker inspect %.12s: %d answers, %w", id, len(all), err)
	}
	s := state{running: all[0].State.Running, pid: all[0].State.Pid, exitCode: all[0].State.ExitCode}
	for _, network := range all[0].NetworkSettings.Networks {
		s.ip = network.IPAddress
	}
	return s, nil
}

// kill ends a container without a word and returns when it has gone.
func (c container) kill(ctx context.Context, id string) error {
	if err := c.run(ctx, "kill", "-s", "KILL", id); err != nil {
		return err
	}
	return c.run(ctx, "wait", id)
}

// stop asks a container to end: an error if it did not, or with another code than 0.
func (c container) stop(ctx context.Context, id string) error {
	if err := c.run(ctx, "stop", "-t", "40", id); err != nil {
		return err
	}
	s, err := c.inspect(ctx, id)
	if err == nil && s.exitCode != 0 {
		err = fmt.Errorf("container %.12s ended with code %d; it said last:\n%s", id, s.exitCode, c.logs(ctx, id, 15))
	}
	return err
}

// logs are the last lines that a container wrote, or why they cannot be had.
func (container) logs(ctx context.Context, id string, lines int) string {
	out, err := exec.CommandContext(ctx, "docker", "logs", "--tail", strconv.Itoa(lines), id).CombinedOutput()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// saveLog keeps what a container wrote, as far as that works.
func (container) saveLog(ctx context.Context, id, path string) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, "docker", "logs", id)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(file, err)
	}
}

// removeLeftovers ends the containers and networks of test processes that were killed before they could.
func (c container) removeLeftovers(ctx context.Context) error {
	dead := func(project string) bool {
		pid, ours := strings.CutPrefix(project, projectPrefix)
		if !ours {
			return false
		}
		_, err := os.Stat("/proc/" + pid)
		return errors.Is(err, os.ErrNotExist)
	}
	const label = `{{.ID}} {{.Label "com.docker.compose.project"}}`
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "-a", "--format", label}, []string{"rm", "-f", "-v"}},
		{[]string{"network", "ls", "--format", label}, []string{"network", "rm"}},
	} {
		out, err := output(exec.CommandContext(ctx, "docker", kind.list...))
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			id, project, _ := strings.Cut(strings.TrimSpace(line), " ")
			if dead(project) {
				if err := c.run(ctx, append(kind.remove, id)...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
