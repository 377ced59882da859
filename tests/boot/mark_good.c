/* A stand-in for the device's command: says on the console what it was asked for. */
#include <stdio.h>

int main(int count, char **arguments)
{
	FILE *console = fopen("/dev/console", "w");

	fprintf(console, "stand-in: %s\n", count > 1 ? arguments[1] : "nothing");
	return 0;
}
