#!/usr/bin/env bats
# docs/reference.md must be what the program prints.

@test "docs/reference.md is up to date" {
    run diff <("$ELBO" help --reference) "$ELBO_SOURCE/docs/reference.md"
    [ "$status" -eq 0 ]
}
