/* A shared object that is no plugin. */
#include <hone_plugin.h>

HONE_EXPORT int nothing(void);
int nothing(void)
{
    return 0;
}
