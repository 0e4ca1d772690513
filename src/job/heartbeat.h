/* Sends a rank's sign of life for `elbo launch --hang-timeout`; called once per step. Takes a microsecond, and does
 * nothing without a launcher that listens. */
#ifndef JOB_HEARTBEAT_H
#define JOB_HEARTBEAT_H

void launcher_heartbeat(void);

#endif
